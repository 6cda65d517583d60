"""The plan of a release: files, rows, what survives, what is refused."""

import dataclasses
from typing import Any

import pytest

from lockyard.artifacts.plan import ReleasePlan, plan_release
from lockyard.artifacts.request import ReleaseRequest, TemplateSources, is_hand_written
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.errors import ConfigError, VersionExistsError
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version, bump
from support.releases import LINE_SOURCE, VARIANTS, distribution, env_out, line, release

BASE = Version(1, 4, 0)
BASE_DIR, TARGET_DIR = "build_artifacts/v1/v1.4/v1.4.0", "build_artifacts/v1/v1.4/v1.4.1"
REQUEST = ReleaseRequest(
    base=BASE,
    version=Version(1, 4, 1),
    bump=Bump.PATCH,
    distribution=distribution(),
    line=line(),
    line_source=LINE_SOURCE,
    base_tree=release(),
    templates=TemplateSources(minor=Tree({"Dockerfile": File(b"FROM x\n")})),
)


def plan(*, force: bool = False, **changes: Any) -> ReleasePlan:
    return plan_release(dataclasses.replace(REQUEST, **changes), force=force)


def files(**texts: str) -> Tree:
    return Tree({name.replace("__", ".").replace("_of_", "/"): File.text(text) for name, text in texts.items()})


def text(found: ReleasePlan, path: str) -> str:
    return found.tree[path].data.decode()


def test_files() -> None:
    found = plan()
    assert list(found.tree) == ["Dockerfile", "cpu.env.in", "gpu.env.in", "source-version.txt"]
    assert text(found, "source-version.txt") == "1.4.0"
    assert text(found, "cpu.env.in").splitlines() == [
        "# This file is auto-generated.",
        "conda-forge::python[version='>=3.11.9,<3.12.0']",
        "conda-forge::numpy[version='>=2.2.1,<2.3.0']",
        "conda-forge::tzdata[version='>=2024a,<2024.1.0']",
    ]
    assert found.directory == TARGET_DIR
    assert (found.kept, found.replaced, found.notes, found.warnings) == ((), (), (), ())


@pytest.mark.parametrize(
    ("part", "python", "numpy"),
    [(Bump.PATCH, ",<3.12.0", ",<2.3.0"), (Bump.MINOR, ",<3.12.0", ",<3.0.0"), (Bump.MAJOR, "", "")],
)
def test_bumps(part: Bump, python: str, numpy: str) -> None:
    found = text(plan(bump=part, version=bump(BASE, part)), "cpu.env.in")
    assert f"python[version='>=3.11.9{python}']" in found
    assert f"numpy[version='>=2.2.1{numpy}']" in found


def test_copied_from_the_base() -> None:
    """Pinned and arg-based files and patch_* go along; a patched Dockerfile and what was locked do not."""
    base = release(
        cpu__pinned_env__in="numpy<3\n",
        gpu__arg_based_env__in="conda-forge::cuda-version=$CUDA\n",
        cpu__conda_lock__yml="x",
        layers__json="{}",
        patch_fix="p",
    ).merge(
        {
            "patch_dir/a": File(b"p", 0o755),
            "Dockerfile-cpu.patch": File(b"d"),
            "cpu.additional_packages_env.in": File(b"x\n"),
        }
    )
    found = plan(base_tree=base)
    assert sorted(set(found.tree) - set(plan().tree)) == [
        "cpu.pinned_env.in",
        "gpu.arg_based_env.in",
        "patch_dir/a",
        "patch_fix",
    ]
    assert found.tree["patch_dir/a"].mode == 0o755


def test_rows_tell_the_reviewer_everything() -> None:
    base = release(
        cpu__pinned_env__in="# why\nnumpy<3\nlibcurl<9\n", gpu__arg_based_env__in="conda-forge::cuda-version=$CUDA\n"
    )
    found = plan(
        base_tree=base,
        target_tree=files(cpu__additional_packages_env__in="conda-forge::mlflow[version='>=2']\n"),
        line=line(VARIANTS.replace("schema = 1", "schema = 1\nremoved_packages = ['tzdata']")),
    )
    rows = {row.name: row for row in found.types["cpu"]}
    assert list(rows) == ["mlflow", "python", "numpy", "tzdata", "libcurl"]
    assert (rows["mlflow"].status, rows["mlflow"].new, rows["mlflow"].installed) == ("new", ">=2", None)
    assert rows["mlflow"].where == f"{TARGET_DIR}/cpu.additional_packages_env.in:1"
    assert (rows["numpy"].status, rows["numpy"].old, rows["numpy"].new) == ("kept", ">=2,<3", ">=2.2.1,<2.3.0")
    assert rows["numpy"].pins == (f"{BASE_DIR}/cpu.pinned_env.in:2 <3",)
    assert rows["python"].policy == "pythonesque"
    assert (rows["tzdata"].status, rows["tzdata"].new) == ("removed", None)
    assert (rows["libcurl"].status, rows["libcurl"].new) == ("pinned", "<9")
    (argument,) = [row for row in found.types["gpu"] if row.status == "argument"]
    assert (argument.name, argument.new) == ("cuda-version", "12.6.*")
    assert "tzdata" not in text(found, "cpu.env.in")


def test_unbounded_when_not_installed() -> None:
    """A name of the base's specs that its lock has not got is written without a bound, and shown so."""
    base = release(cpu__env__out=env_out({"python": "3.11.9"}))
    found = plan(base_tree=base)
    assert "conda-forge::numpy\n" in text(found, "cpu.env.in")
    assert [row.status for row in found.types["cpu"]] == ["kept", "unbounded", "unbounded"]


def test_own_lock_is_read_before_env_out() -> None:
    """The first platform of the type decides, and a channel is named only as the line names it."""

    def packages(platform: str, version: str) -> tuple[LockedPackage, ...]:
        url = f"file:channel/{platform}/numpy-{version}-h0_0.conda"
        return (
            LockedPackage(
                name="numpy", version=version, build="h0_0", url=url, subdir=platform, channel="channel", md5="0" * 32
            ),
        )

    lock = Lock(
        image_type="cpu",
        platforms={"linux-64": packages("linux-64", "2.5.0"), "linux-aarch64": packages("linux-aarch64", "2.4.0")},
        channels=("file:channel",),
    )
    base = release(cpu__lock__json=write_lock_json(lock), cpu__env__in="numpy\n")
    variants = 'schema = 1\nchannels = ["file:channel"]\n[variants.cpu]\nplatforms = ["linux-64", "linux-aarch64"]\n'
    assert text(plan(base_tree=base, line=line(variants)), "cpu.env.in").splitlines()[1:] == [
        "numpy[version='>=2.5.0,<2.6.0']"
    ]
    turned = variants.replace('"linux-64", "linux-aarch64"', '"linux-aarch64", "linux-64"')
    assert "2.4.0" in text(plan(base_tree=base, line=line(turned)), "cpu.env.in")
    other = variants.replace('"linux-64", "linux-aarch64"', '"osx-arm64"')
    found = plan(base_tree=base, line=line(other))
    assert "2.5.0" in text(found, "cpu.env.in")
    assert "no osx-arm64" in found.notes[0]


def test_assets_come_along() -> None:
    assert plan(assets=Tree({"NOTICE": File(b"n")})).tree["NOTICE"] == File(b"n")


@pytest.mark.parametrize("where", ["assets", "template"])
def test_generated_names_are_taken(where: str) -> None:
    taken = Tree({"cpu.lock.json": File(b"{}")})
    change = {"assets": taken} if where == "assets" else {"templates": TemplateSources(minor=taken)}
    with pytest.raises(ConfigError, match=r"cpu\.lock\.json, which is generated"):
        plan(**change)


def test_dockerfile_is_rendered() -> None:
    template = Tree(
        {"Dockerfile.j2": File(b"{{ name }} {{ version }} from {{ base_version }}, {{ types | join('+') }}")}
    )
    found = plan(templates=TemplateSources(minor=template))
    assert text(found, "Dockerfile") == "small 1.4.1 from 1.4.0, cpu+gpu"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cpu.additional_packages_env.in", True),
        ("cpu.pinned_env.in", True),
        ("patch_x", True),
        ("patch_x/y", True),
        ("Dockerfile-cpu.patch", True),
        ("cpu.env.in", False),
        ("cpu.arg_based_env.in", True),
        ("Dockerfile", False),
        ("dirs/patch_x", False),
    ],
)
def test_hand_written_names(path: str, expected: bool) -> None:
    assert is_hand_written(path) is expected


HAND_WRITTEN = files(
    cpu__additional_packages_env__in="extra\n", cpu__pinned_env__in="numpy<2.2.9\n", patch_a="mine", Dockerfile_cpu="x"
)
HAND_WRITTEN = Tree({name.replace("_cpu", "-cpu.patch"): file for name, file in HAND_WRITTEN.items()})


def test_hand_written_inputs_need_no_force_and_survive() -> None:
    """They are not part of the new tree, even where the base has a file of that name."""
    base = release(cpu__pinned_env__in="numpy<3\n", patch_a="base")
    found = plan(base_tree=base, target_tree=HAND_WRITTEN, nested=("v1.4.1-beta.1",))
    assert found.kept == tuple(sorted([*HAND_WRITTEN, "v1.4.1-beta.1"]))
    assert not set(found.kept) & set(found.tree)
    assert "\nextra\n" in text(found, "cpu.env.in")
    assert len(found.notes) == 2
    (numpy,) = [row for row in found.types["cpu"] if row.name == "numpy"]
    assert numpy.pins == (f"{TARGET_DIR}/cpu.pinned_env.in:1 <2.2.9",)


@pytest.mark.parametrize(
    "old",
    [
        release(),
        files(cpu__lock__json="{}"),
        files(Dockerfile="FROM mine"),
        files(cpu__linux_aarch64__env__out="x"),
        files(layers__json="{}"),
        HAND_WRITTEN.merge(files(gpu__env__in="x")),
    ],
    ids=["release", "lock", "Dockerfile", "env.out", "layers", "mixed"],
)
def test_generated_files_need_force(old: Tree) -> None:
    with pytest.raises(VersionExistsError) as caught:
        plan(target_tree=old)
    assert TARGET_DIR in caught.value.message
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint


def test_exists_even_when_nothing_generated_is_left() -> None:
    with pytest.raises(VersionExistsError, match="1.4.1 exists"):
        plan(exists=True)


def test_force_replaces_what_commands_make_and_keeps_the_rest() -> None:
    old = release(
        cpu__lock__json="{}",
        layers__json="{}",
        Dockerfile="old",
        NOTES="mine",
        images__json="{}",
        gpu__pinned_env__in="a\n",
    ).merge(files(dirs_of_mine="x"))
    found = plan(target_tree=old, exists=True, force=True)
    assert found.kept == ("NOTES", "dirs/mine", "gpu.pinned_env.in", "images.json")
    assert found.replaced == ("cpu.env.out", "cpu.lock.json", "gpu.env.out", "layers.json")
    assert text(found, "Dockerfile") == "FROM x\n"


def test_a_file_in_the_way_of_a_directory_is_replaced() -> None:
    template = TemplateSources(minor=Tree({"dirs/etc/a": File(b"a")}))
    found = plan(templates=template, target_tree=files(dirs="a file"), force=True)
    assert found.kept == ()
    assert found.replaced == ("dirs",)


def test_new_image_type_starts_from_its_additional_file() -> None:
    variants = VARIANTS + "[variants.tpu]\n"
    with pytest.raises(ConfigError, match=r"v1\.4\.0/tpu\.env\.in is missing") as caught:
        plan(line=line(variants))
    assert caught.value.hint is not None
    assert "tpu.additional_packages_env.in" in caught.value.hint
    found = plan(line=line(variants), target_tree=files(tpu__additional_packages_env__in="jax=1\n"))
    assert text(found, "tpu.env.in").splitlines()[1:] == ["jax[version='1.*']"]


def test_notes_say_what_is_not_carried_over() -> None:
    """A build constraint of the base, an additional constraint on an installed package, a list of addresses."""
    base = release(cpu__env__in="conda-forge::numpy[version='>=2',build='*mkl*']\n")
    found = plan(base_tree=base, target_tree=files(cpu__additional_packages_env__in="tzdata[version='>=2020']\n"))
    assert f"cpu: {BASE_DIR}/cpu.env.in:1: numpy's build '*mkl*' is not carried over" in found.notes[1]
    assert "tzdata is in the base lock (2024a)" in found.notes[0]
    pinned = plan(base_tree=base.merge(files(cpu__pinned_env__in="numpy[build='*mkl*']\n")))
    assert not pinned.notes
    explicit = plan(base_tree=release(cpu__env__in=env_out()))
    assert "list of addresses" in explicit.notes[0]
    assert text(explicit, "cpu.env.in") == text(plan(), "cpu.env.in")


def test_typo_is_a_warning() -> None:
    found = plan(base_tree=release(cpu__env__in="numpy[version'>=1']\n"))
    assert found.warnings[0].startswith(f"{BASE_DIR}/cpu.env.in:1: ")


@pytest.mark.parametrize(
    ("base", "target", "message"),
    [
        (release(cpu__env__in="numpy\n-rm\n"), Tree(), f"{BASE_DIR}/cpu.env.in:2: "),
        (release(cpu__pinned_env__in="a b c d\n"), Tree(), f"{BASE_DIR}/cpu.pinned_env.in:1: "),
        (release(gpu__arg_based_env__in="x=$CUDDA\n"), Tree(), f"{BASE_DIR}/gpu.arg_based_env.in:1: "),
        (
            release(),
            files(gpu__additional_packages_env__in="\n\n../x\n"),
            f"{TARGET_DIR}/gpu.additional_packages_env.in:3: ",
        ),
        (release().merge({"cpu.env.in": File(b"a\n\xff")}), Tree(), f"{BASE_DIR}/cpu.env.in:2: not UTF-8"),
        (release(cpu__env__out="@EXPLICIT\nnonsense\n"), Tree(), f"{BASE_DIR}/cpu.env.out:2: "),
    ],
)
def test_bad_lines_name_file_and_line(base: Tree, target: Tree, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(base_tree=base, target_tree=target)
    assert caught.value.message.startswith(message)


def test_missing_base_lock_names_the_file() -> None:
    base = Tree({path: file for path, file in release().items() if path != "gpu.env.out"})
    with pytest.raises(ConfigError, match=rf"^{BASE_DIR}/gpu\.lock\.json is missing") as caught:
        plan(base_tree=base)
    assert caught.value.hint == "lockyard lock 1.4.0"


def test_asked_and_removed_is_a_contradiction() -> None:
    variants = line(VARIANTS.replace("schema = 1", "schema = 1\nremoved_packages = ['jax']"))
    with pytest.raises(ConfigError, match=r"additional_packages_env\.in:1: jax is asked"):
        plan(line=variants, target_tree=files(cpu__additional_packages_env__in="jax\n"))


def test_argument_of_the_environment_is_not_needed_yet() -> None:
    variants = line(VARIANTS.replace("'12.6'", "{ env = 'CUDA_VERSION' }"))
    base = release(gpu__arg_based_env__in="cuda-version=$CUDA\n")
    assert plan(base_tree=base, line=variants).types["gpu"][-1].new == "0.*"
    assert plan(base_tree=base, line=variants, environ={"CUDA_VERSION": "12.9"}).types["gpu"][-1].new == "12.9.*"


def test_the_plan_is_a_function_of_its_request() -> None:
    assert plan() == plan()
    assert plan().tree.digest == plan(environ={"UNUSED": "x"}).tree.digest


def two_platforms() -> Lock:
    """A lock whose packages differ between platforms."""

    def package(name: str, version: str, platform: str) -> LockedPackage:
        url = f"https://conda.anaconda.org/conda-forge/{platform}/{name}-{version}-h0_0.conda"
        return LockedPackage(name=name, version=version, build="h0_0", url=url, subdir=platform, md5="0" * 32)

    return Lock(
        image_type="cpu",
        platforms={
            "linux-64": (package("numpy", "2.5.0", "linux-64"), package("mkl", "2024.1.0", "linux-64")),
            "linux-aarch64": (package("numpy", "2.5.0", "linux-aarch64"), package("acl", "24.2", "linux-aarch64")),
        },
        channels=("conda-forge",),
    )


def test_a_package_of_another_platform_is_bounded_by_what_that_one_has() -> None:
    """The first platform decides; a package that is kept off it is read from the first of its own."""
    base = release(cpu__lock__json=write_lock_json(two_platforms()), cpu__env__in="numpy\nmkl\nacl\n")
    variants = """schema = 1
[platform-packages]
acl = ["linux-aarch64"]
mkl = ["linux-64"]
[variants.cpu]
platforms = ["linux-64", "linux-aarch64"]
"""
    assert text(plan(base_tree=base, line=line(variants)), "cpu.env.in").splitlines()[1:] == [
        "numpy[version='>=2.5.0,<2.6.0']",
        "mkl[version='>=2024.1.0,<2024.2.0']",
        "acl[version='>=24.2,<24.3.0']",
    ]
    without = variants.replace('acl = ["linux-aarch64"]\n', "")
    assert text(plan(base_tree=base, line=line(without)), "cpu.env.in").splitlines()[3] == "acl"
    with pytest.raises(ConfigError, match=rf"^{LINE_SOURCE}: platform-packages"):
        plan(base_tree=base, line=line(variants.replace("acl =", "'-acl' =")))


def test_policies_by_name_and_glob() -> None:
    """Each policy, in every bump; a name that no type has is a note, since it may be a typo."""
    variants = VARIANTS.replace(
        "schema = 1",
        "schema = 1\n[policies]\nnumpy = 'pinned'\n'tz*' = 'latest'\npytohn = 'calver'\n'cuda-*' = 'pinned'",
    )
    for part in Bump:
        found = plan(bump=part, version=bump(BASE, part), line=line(variants))
        assert text(found, "gpu.env.in").splitlines()[2:] == [
            "conda-forge::numpy[version='==2.2.1']",
            "conda-forge::tzdata[version='>=2024a']",
        ]
        assert found.notes == (f"{LINE_SOURCE}: policies: no image type has a package 'pytohn'",)
        assert [row.policy for row in found.types["cpu"]] == ["pythonesque", "pinned", "latest"]


def test_removed_but_pinned_is_a_warning() -> None:
    """A pinned or an arg-based line asks for its package by itself."""
    found = plan(
        base_tree=release(cpu__pinned_env__in="tzdata<2025\n"),
        line=line(VARIANTS.replace("schema = 1", "schema = 1\nremoved_packages = ['tzdata']")),
    )
    (warning,) = found.warnings
    assert warning.startswith(f"{BASE_DIR}/cpu.pinned_env.in:1: tzdata is asked here, so it stays")


def test_a_name_twice_in_the_additional_file_is_a_warning() -> None:
    found = plan(target_tree=files(cpu__additional_packages_env__in="jax>=1\nscipy\njax<2\n"))
    assert text(found, "cpu.env.in").splitlines()[1:3] == ["jax[version='<2']", "scipy"]
    assert found.warnings == (
        f"{TARGET_DIR}/cpu.additional_packages_env.in:1: jax comes again in line 3; that one counts",
    )


def test_force_says_which_differing_files_it_replaces() -> None:
    found = plan(target_tree=files(Dockerfile="FROM mine\n", cpu__env__in="x\n"), force=True)
    assert found.notes == ("Dockerfile is replaced; the old one was different",)


def test_arguments_of_a_person_survive() -> None:
    """An arg-based file is an input: the target's own is kept and read."""
    own = files(gpu__arg_based_env__in="conda-forge::cuda-version=12.8\n")
    found = plan(base_tree=release(gpu__arg_based_env__in="conda-forge::cuda-version=$CUDA\n"), target_tree=own)
    assert found.kept == ("gpu.arg_based_env.in",)
    (row,) = [row for row in found.types["gpu"] if row.status == "argument"]
    assert (row.new, row.where) == ("12.8.*", f"{TARGET_DIR}/gpu.arg_based_env.in:1")


def test_an_argument_that_only_the_build_knows() -> None:
    """It does not stop the plan, and the note says what is shown; a value or a default is taken."""
    variants = VARIANTS.replace("CUDA = '12.6'", "CUDA = { env = 'CUDA_VERSION' }, OTHER = { env = 'OTHER' }")
    base = release(gpu__arg_based_env__in="conda-forge::cuda-version=$CUDA\n")
    found = plan(base_tree=base, line=line(variants))
    assert found.notes == (
        f"gpu: {BASE_DIR}/gpu.arg_based_env.in: nothing gives $CUDA a value here; 0 is shown in its place",
    )
    known = plan(base_tree=base, line=line(variants), environ={"CUDA_VERSION": "12.8"})
    assert known.notes == ()
    assert [row.new for row in known.types["gpu"] if row.status == "argument"] == ["12.8.*"]


def test_an_image_type_that_ends_is_a_note() -> None:
    found = plan(line=line("schema = 1\n[variants.cpu]\n"))
    assert found.notes == (f"gpu: an image type of 1.4.0, not of {LINE_SOURCE}; its files are left out",)
    assert "gpu.env.in" not in found.tree


def test_removed_packages_are_names_in_any_case() -> None:
    found = plan(line=line(VARIANTS.replace("schema = 1", "schema = 1\nremoved_packages = ['NumPy']")))
    assert "numpy" not in text(found, "cpu.env.in")
