"""The order law of a push and what a plan refuses."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.errors import RegistryError
from lockyard.oci.values import Descriptor, MediaType
from lockyard.registry.plan import Blob, Manifest, Present, PushImage, PutManifest, PutTag, SendBlob, Target, plan_push

A, B, C = "one.example.com/team/a", "one.example.com/team/b", "two.example.com/team/c"


def blob(seed: str, size: int = 10) -> Blob:
    return Blob(Descriptor.of(MediaType.LAYER_GZIP, seed.ljust(size).encode()), Path(seed))


def manifest(seed: str) -> Manifest:
    return Manifest(Descriptor.of(MediaType.MANIFEST, seed.encode()), seed.encode())


def image(image_type: str = "cpu", *blobs: Blob, platforms: int = 1) -> PushImage:
    manifests = tuple(manifest(f"{image_type} {number}") for number in range(platforms + (platforms > 1)))
    return PushImage(
        image_type=image_type,
        tag=f"1.0.0-{image_type}",
        manifests=manifests,
        blobs=blobs or (blob("x"), blob(image_type)),
    )


def target(repository: str, **options: object) -> Target:
    floating = {"cpu": ("1.0-cpu", "latest-cpu"), "gpu": ("1.0-gpu",)}
    return Target(repository=repository, registry=repository.partition("/")[0], **{"floating": floating, **options})  # type: ignore[arg-type]


blobs = st.lists(st.sampled_from([blob(seed) for seed in "abcdef"]), min_size=1, unique_by=lambda item: item.digest)
images = st.lists(
    st.builds(
        lambda kind, some, number: image(kind, *some, platforms=number),
        st.sampled_from(["cpu", "gpu", "tpu"]),
        blobs,
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda item: item.image_type,
)
targets = st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True).map(
    lambda names: [target(name) for name in names]
)
present = st.dictionaries(
    st.sampled_from([A, B, C]),
    st.builds(lambda some: Present(blobs=frozenset(item.digest for item in some)), blobs),
)


@given(images, targets, present)
def test_a_tag_comes_after_everything_that_it_leads_to(
    some: list[PushImage], places: list[Target], there: Mapping[str, Present]
) -> None:
    """Blobs before the manifests of their repository, all exact tags after all manifests, floating tags last."""
    plan = plan_push(some, places, there)
    effects = plan.effects
    exact = {item.tag for item in some}
    order = []
    for effect in effects:
        match effect:
            case PutTag(_, tag, _, _):
                order.append(2 if tag in exact else 3)
            case _:
                order.append(1)
    assert order == sorted(order)
    for place in places:
        mine = [effect for effect in effects if effect.repository == place.repository]
        kinds = [(SendBlob, PutManifest, PutTag).index(type(effect)) for effect in mine]
        assert kinds == sorted(kinds)
        sent = {effect.blob.digest for effect in mine if isinstance(effect, SendBlob)}
        wanted = {item.digest for one in some for item in one.blobs}
        assert sent == wanted - there.get(place.repository, Present()).blobs


@given(images, targets, present)
def test_a_mount_is_from_a_repository_of_the_registry_that_is_complete_by_then(
    some: list[PushImage], places: list[Target], there: Mapping[str, Present]
) -> None:
    order = [place.repository for place in places]
    for effect in plan_push(some, places, there).effects:
        if isinstance(effect, SendBlob) and effect.source is not None:
            assert effect.source.partition("/")[0] == effect.repository.partition("/")[0]
            before = order.index(effect.source) < order.index(effect.repository)
            has = there.get(effect.source, Present()).blobs
            assert before or effect.blob.digest in has


@given(images, targets, present)
def test_every_byte_is_counted_once(some: list[PushImage], places: list[Target], there: Mapping[str, Present]) -> None:
    plan = plan_push(some, places, there)
    distinct = {item.digest: item.size for one in some for item in one.blobs}
    assert plan.upload_bytes + plan.mount_bytes + plan.present_bytes == sum(distinct.values()) * len(places)


def test_the_second_repository_of_a_registry_mounts() -> None:
    plan = plan_push([image()], [target(A), target(C), target(B)], {})
    sources = {effect.repository: effect.source for effect in plan.effects if isinstance(effect, SendBlob)}
    assert sources == {A: None, C: None, B: A}


def test_a_repository_that_has_a_blob_gives_it_to_those_before_it() -> None:
    one = image()
    has = Present(blobs=frozenset([one.blobs[0].digest]))
    plan = plan_push([one], [target(A), target(B)], {B: has})
    sources = [(e.repository, e.blob.digest, e.source) for e in plan.effects if isinstance(e, SendBlob)]
    second = one.blobs[1].digest
    assert sorted(sources, key=str) == sorted([(A, one.blobs[0].digest, B), (A, second, None), (B, second, A)], key=str)


def test_donors_are_asked_before_anything_is_sent() -> None:
    one = image()
    donors = {"one.example.com": {one.blobs[0].digest: "one.example.com/stage"}}
    plan = plan_push([one], [target(A), target(C)], {}, donors=donors)
    sources = {(e.repository, e.blob.digest): e.source for e in plan.effects if isinstance(e, SendBlob)}
    assert sources[A, one.blobs[0].digest] == "one.example.com/stage"
    assert sources[C, one.blobs[0].digest] is None


def test_a_layer_that_is_too_large_for_a_registry_stops_the_push() -> None:
    one = image("cpu", blob("x", 300))
    plan_push([one], [target(A, max_blob=300)], {})
    with pytest.raises(RegistryError, match="at most 299 bytes"):
        plan_push([one], [target(C), target(A, max_blob=299)], {})


def test_without_mounting_every_target_gets_its_bytes() -> None:
    places = [Target(repository="oci:a"), Target(repository="oci:b")]
    assert all(
        effect.source is None for effect in plan_push([image()], places, {}).effects if isinstance(effect, SendBlob)
    )


def test_an_index_follows_its_parts_and_gets_the_tags() -> None:
    one = image("cpu", platforms=2)
    plan = plan_push([one], [target(A)], {})
    puts = [effect.manifest for effect in plan.effects if isinstance(effect, PutManifest)]
    assert puts == list(one.manifests)
    assert {effect.manifest.digest for effect in plan.effects if isinstance(effect, PutTag)} == {one.top.digest}


def test_nothing_to_do_is_an_empty_plan() -> None:
    one = image()
    has = Present(
        blobs=frozenset(item.digest for item in one.blobs),
        manifests=frozenset([one.top.digest]),
        tags=dict.fromkeys(["1.0.0-cpu", "1.0-cpu", "latest-cpu"], one.top.digest),
    )
    plan = plan_push([one], [target(A)], {A: has})
    assert plan.effects == ()
    assert plan.tags == ((A, "1.0.0-cpu", one.top.digest),)  # still read back


def test_taken_exact_tags_are_all_named() -> None:
    old = "sha256:" + "0" * 64
    has = Present(tags={"1.0.0-cpu": old})
    with pytest.raises(RegistryError, match="never moves") as caught:
        plan_push([image()], [target(A), target(B)], {A: has, B: has})
    assert A in caught.value.message
    assert any(B in line for line in caught.value.details)


@pytest.mark.parametrize(("movable", "move_tags"), [(True, False), (False, True)])
def test_an_exact_tag_moves_where_it_may(movable: bool, move_tags: bool) -> None:
    old = "sha256:" + "0" * 64
    has = Present(tags={"1.0.0-cpu": old})
    plan = plan_push([image()], [target(A, movable=movable)], {A: has}, move_tags=move_tags)
    assert [effect.moves for effect in plan.effects if isinstance(effect, PutTag) and effect.tag == "1.0.0-cpu"] == [
        old
    ]


def test_two_types_cannot_want_one_tag() -> None:
    with pytest.raises(RegistryError, match=r"cpu and gpu both want the tag 'latest'"):
        plan_push([image("cpu"), image("gpu")], [target(A, floating={"cpu": ("latest",), "gpu": ("latest",)})], {})


def test_the_plan_reads_as_what_will_be_done() -> None:
    one = image("cpu", blob("x", 300), blob("y", 50))
    plan = plan_push([one], [target(A), target(B)], {})
    lines = plan.lines()
    assert lines[0] == f"{A}:"
    assert lines[1] == "  0 blobs are there (0 bytes), 0 to mount (0 bytes), 2 to upload (350 bytes)"
    assert lines[2] == f"  upload blob {one.blobs[0].descriptor.digest.short} (300 bytes)"
    assert f"  mount blob {one.blobs[1].descriptor.digest.short} (50 bytes) from {A}" in lines
    assert lines[-1] == "upload 350 bytes, mount 350, already there 0"
    value = plan.to_json()
    assert [stage["kind"] for stage in value["stages"]] == ["blobs", "manifests"] * 2 + ["exact tags"] * 2 + [
        "floating tags"
    ] * 2
    assert value["upload_bytes"] == 350
