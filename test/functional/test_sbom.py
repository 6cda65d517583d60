"""Bills of materials and provenance: valid by their own validators, the same bytes each time, attached to images."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockyard.app.targets import open_places
from lockyard.app.workspace import Workspace, open_workspace
from lockyard.cli.output import ConsoleLog
from lockyard.cli.root import make_toolbox, run
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.distribution import Repository
from lockyard.errors import LockyardError
from lockyard.oci.basefile import BuiltBase, format_bases
from lockyard.registry.referrers import fallback_tag, parse_referrers
from lockyard.reports import sbom
from support.built import add_release, make_distribution

PLACE = "build_artifacts/v1/v1.0/v1.0.1"


def package(name: str, license_: str | None = "MIT", *depends: str, size: int | None = 5) -> LockedPackage:
    return LockedPackage(
        name=name, version="1.2", build="h_0", subdir="noarch", channel="conda-forge", license=license_, depends=depends,
        url=f"https://conda.anaconda.org/conda-forge/noarch/{name}-1.2-h_0.conda", md5="a" * 32, sha256="b" * 64,
        size=size, timestamp=1_767_225_600_000,
    )  # fmt: skip


def bill(*packages: LockedPackage, **fields: Any) -> sbom.Bill:
    values: dict[str, Any] = {
        "name": "team/small", "version": "1.0.1", "image_type": "cpu", "platform": "linux-64", "tool": "0.1",
        "digest": f"sha256:{'c' * 64}", "base": "docker.io/library/ubuntu:24.04", "base_digest": f"sha256:{'d' * 64}",
    }  # fmt: skip
    return sbom.Bill(packages=packages, **{**values, **fields})


ALL = (
    package("numpy", "BSD-3-Clause", "python >=3", "_openmp_mutex"),
    package("python", "Python-2.0"),
    package("_openmp_mutex", "BSD-3-Clause AND (GPL-2.0-only OR MIT)"),
    package("gcc", "GPL-3.0-only WITH GCC-exception-3.1"),
    package("cuda", "LicenseRef-NVIDIA-End-User-License-Agreement"),
    package("odd", "MIT/X11 Derivative <b>"),
    package("none", None, size=None),
)


def test_both_are_valid() -> None:
    found = bill(*ALL)
    sbom.check_cyclonedx(sbom.cyclonedx(found))
    sbom.check_spdx(found)


def test_the_validators_can_fail() -> None:
    value = json.loads(sbom.cyclonedx(bill(*ALL)))
    value["components"][0]["type"] = "nonsense"
    with pytest.raises(LockyardError, match="CycloneDX"):
        sbom.check_cyclonedx(json.dumps(value))
    with pytest.raises(LockyardError, match="SPDX"):
        sbom.check_spdx(bill(replace(ALL[0], md5="x")))


@pytest.mark.parametrize("fields", [{"digest": ""}, {"base": "scratch", "base_digest": ""}, {"base_digest": ""}])
def test_images_that_are_not_built_and_bases_without_digest(fields: dict[str, str]) -> None:
    found = bill(*ALL, **fields)
    sbom.check_cyclonedx(sbom.cyclonedx(found))
    sbom.check_spdx(found)


def test_adopted_packages_are_enough() -> None:
    adopted = LockedPackage(
        name="six", version="1!2.0", build="h0", subdir="noarch", url="file:c/noarch/six-1!2.0-h0.tar.bz2"
    )
    sbom.check_cyclonedx(sbom.cyclonedx(bill(adopted)))
    sbom.check_spdx(bill(adopted))
    assert str(sbom.package_purl(adopted)) == "pkg:conda/six@1%212.0?build=h0&subdir=noarch&type=tar.bz2"


def test_the_same_lock_gives_the_same_bytes_in_any_order() -> None:
    first, second = bill(*ALL), bill(*reversed(ALL))
    assert sbom.cyclonedx(first) == sbom.cyclonedx(second)
    assert sbom.spdx(first) == sbom.spdx(first)
    assert first.identity == second.identity
    assert first.identity != bill(*ALL[1:]).identity
    assert first.identity != bill(*ALL, digest="").identity


def test_cyclonedx_says_everything() -> None:
    value = json.loads(sbom.cyclonedx(bill(*ALL)))
    parts = {item["name"]: item for item in value["components"]}
    assert value["specVersion"] == "1.6"
    assert value["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    assert parts["numpy"]["purl"] == "pkg:conda/numpy@1.2?build=h_0&channel=conda-forge&subdir=noarch&type=conda"
    assert {item["alg"]: item["content"] for item in parts["numpy"]["hashes"]} == {"MD5": "a" * 32, "SHA-256": "b" * 64}
    assert {"name": "lockyard:size", "value": "5"} in parts["numpy"]["properties"]
    assert parts["odd"]["licenses"][0]["license"]["name"] == "MIT/X11 Derivative <b>"
    assert parts["cuda"]["licenses"][0]["expression"] == "LicenseRef-NVIDIA-End-User-License-Agreement"
    assert "licenses" not in parts["none"]
    assert parts["docker.io/library/ubuntu:24.04"]["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    graph = {item["ref"]: item.get("dependsOn", []) for item in value["dependencies"]}
    assert graph["pkg:numpy"] == ["pkg:_openmp_mutex", "pkg:python"]
    assert len(graph["image"]) == len(ALL) + 1


def test_spdx_says_everything() -> None:
    value = json.loads(sbom.spdx(bill(*ALL)))
    parts = {item["name"]: item for item in value["packages"]}
    assert value["creationInfo"]["created"] == "2026-01-01T00:00:00Z"
    assert parts["gcc"]["licenseDeclared"] == "GPL-3.0-only WITH GCC-exception-3.1"
    assert parts["odd"]["licenseDeclared"] == "NOASSERTION"
    assert "MIT/X11 Derivative <b>" in parts["odd"]["comment"]
    assert parts["numpy"]["comment"] == "size of the archive in bytes: 5"
    assert [item["licenseId"] for item in value["hasExtractedLicensingInfos"]] == [
        "LicenseRef-NVIDIA-End-User-License-Agreement"
    ]
    kinds = [item["relationshipType"] for item in value["relationships"]]
    assert (kinds.count("CONTAINS"), kinds.count("DEPENDS_ON"), kinds.count("DESCRIBES")) == (len(ALL), 2, 1)


def test_provenance() -> None:
    value = json.loads(sbom.provenance(bill(*ALL), lock={"digest": "sha256:x"}, parameters={"prefix": "/opt/conda"}))
    assert value["subject"] == [{"name": "team/small-cpu", "digest": {"sha256": "c" * 64}}]
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = value["predicate"]["buildDefinition"]
    assert definition["internalParameters"] == {"lock": {"digest": "sha256:x"}}
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": "d" * 64}
    assert len(definition["resolvedDependencies"]) == len(ALL) + 1
    with pytest.raises(LockyardError, match="not built"):
        sbom.provenance(bill(*ALL, digest=""), lock={}, parameters={})


# ── the command


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A built and tested release with locks."""
    root = tmp_path / "small"
    make_distribution(root)
    add_release(root, "1.0.1")
    (root / PLACE / "source-version.txt").unlink()
    for name in ("cpu", "gpu"):
        lock = Lock(
            image_type=name, platforms={"linux-64": ALL[:2]}, channels=("conda-forge",), input_hash=f"sha256:{'0' * 64}"
        )
        (root / PLACE / f"{name}.lock.json").write_text(write_lock_json(lock))
        (root / PLACE / f"{name}.env.in").write_text("numpy\n")
        with_lock(root, name, lock)
    monkeypatch.chdir(root)
    return open_workspace(root)


def with_lock(root: Path, name: str, lock: Lock) -> None:
    """Say in build.json that it was made from this lock."""
    from lockyard.app.facts import lock_digest

    path = root / f"out/1.0.1/{name}/linux-64/build.json"
    value = json.loads(path.read_text())
    value |= {"lock": {"digest": lock_digest(lock, "linux-64")}, "size": 10, "layers": []}
    path.write_text(json.dumps(value))


@pytest.fixture
def lockyard(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*args: str) -> tuple[int, str, str]:
        code = run(args, environ={})
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_files_are_written_and_repeat(lockyard: Callable[..., tuple[int, str, str]], workspace: Workspace) -> None:
    code, out, _ = lockyard("generate-sbom", "1.0.1", "--validate")
    assert code == 0
    assert out.splitlines() == [
        f"out/1.0.1/sbom/{name}.linux-64.{end}"
        for name in ("cpu", "gpu")
        for end in ("cdx.json", "provenance.json", "spdx.json")
    ]
    before = [(workspace.root / path).read_bytes() for path in out.splitlines()]
    assert lockyard("generate-sbom", "1.0.1", "--output", "bills")[0] == 0
    assert [(workspace.root / "bills" / Path(path).name).read_bytes() for path in out.splitlines()] == before


def test_one_of_them(lockyard: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = lockyard("generate-sbom", "1.0.1", "--format", "spdx", "--image-type", "gpu", "--output", "bills")
    assert out == "bills/gpu.linux-64.spdx.json\n"


@pytest.mark.parametrize("reference", [f"registry.example.com/team/base:1.0-cpu@sha256:{'e' * 64}", None])
def test_an_image_that_is_not_built_begins_from_the_base_that_was(
    lockyard: Callable[..., tuple[int, str, str]], workspace: Workspace, reference: str | None
) -> None:
    shutil.rmtree(workspace.root / "out")
    line = workspace.root / "template/v1"
    (line / "Dockerfile.base").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN true\n")
    built = BuiltBase(digest=f"sha256:{'e' * 64}", reference=reference, inputs=f"sha256:{'f' * 64}")
    (line / "bases.json").write_bytes(format_bases({"cpu": {"linux-64": built}}))
    assert lockyard("generate-sbom", "1.0.1", "--format", "cyclonedx", "--output", "bills")[0] == 0
    parts = json.loads((workspace.root / "bills/cpu.linux-64.cdx.json").read_text())["components"]
    base = next(item for item in parts if item["name"] == (reference or "oci:out/bases/1.0/cpu/linux-64"))
    assert base["hashes"] == [{"alg": "SHA-256", "content": "e" * 64}]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--platform", "linux-aarch64"), "no image type of 1.0.1 has the platform linux-aarch64"),
        (("--output", "../x"), "is not a plain relative path"),
        (("--attach", "nowhere"), "is neither a repository nor an alias"),
    ],
)
def test_errors(lockyard: Callable[..., tuple[int, str, str]], args: tuple[str, ...], words: str) -> None:
    code, _, err = lockyard("generate-sbom", "1.0.1", *args)
    assert code == 2
    assert words in err


def attached(workspace: Workspace, digest: str) -> list[str]:
    toolbox = make_toolbox(ConsoleLog(), {})
    with open_places(toolbox, workspace, (Repository(uri="oci:published"),), insecure=False) as (place,):
        listed = place.port.referrers(digest) or place.port.get_manifest(fallback_tag(digest))
        return sorted(item.artifact_type for item in parse_referrers(listed, source="test"))


def test_push_attaches_them_once(lockyard: Callable[..., tuple[int, str, str]], workspace: Workspace) -> None:
    code, _, err = lockyard("push", "1.0.1", "--target-ecr-repo", "oci:published")
    assert code == 0, err
    assert "attached 6 bills of materials and statements of provenance" in err
    digest = json.loads((workspace.root / PLACE / "images.json").read_text())["images"]["cpu"]["digest"]
    kinds = ["application/spdx+json", "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]
    assert [item for item in attached(workspace, digest) if "tests" not in item] == kinds
    code, _, err = lockyard("push", "1.0.1", "--target-ecr-repo", "oci:published")
    assert code == 0
    assert "attached" not in err
    assert "all of them are attached already" in lockyard("generate-sbom", "1.0.1", "--attach", "oci:published")[2]
