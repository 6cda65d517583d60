"""Build and test whole releases: real packages and layers, made-up image tests."""

import contextlib
import functools
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lockyard.app.images import open_built, run_in_image, suite_of
from lockyard.app.testing import check_release
from lockyard.checks.plan import Record, parse_record, suite_digest, verify_record
from lockyard.cli.root import make_toolbox, run
from lockyard.errors import BuildError, ConfigError, HashMismatchError, ImageTestError, LockyardError, StaleLockError
from lockyard.oci.image import Image
from lockyard.oci.layout import read_layout
from lockyard.oci.values import Compression, Digest
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import Loaded
from lockyard.version import Version
from support.packages import Node
from support.site import DATA, PACKAGES, PURE, PYTHON, RELEASE, TOOL, VERSION, Sandbox, Site
from support.site import make_site as site_in

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    return functools.partial(site_in, tmp_path)


def contents(layout: Path) -> dict[str, str]:
    """Path → what is there, over all layers of a built image; a path that comes twice must be a directory."""
    found: dict[str, str] = {}
    image = read_layout(layout, verify_layers=True).image
    for layer in image.layers:
        blob = layout / "blobs" / "sha256" / layer.descriptor.digest.hex
        with tarfile.open(blob) as archive:
            for member in archive:
                assert member.isdir() or member.name not in found
                found[member.name] = "" if member.isdir() else member.linkname if member.issym() else f"{member.mode:o}"
    return found


def listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_same_lock_gives_the_same_digest_anywhere(compression: Compression, make_site: MakeSite) -> None:
    one, two = (make_site(name, compression=compression) for name in ("one", "another-directory"))
    assert one.digests(workers=1) == two.digests(workers=4)
    assert len(set(one.digests())) == 2


def test_an_image_holds_its_packages_and_says_what_it_is(make_site: MakeSite) -> None:
    site = make_site()
    cpu, gpu = site.build(skip_tests=True).images
    found = contents(cpu.layout)
    assert found["opt/conda/bin/tool"] == "755"
    assert found["opt/conda/bin/python"] == "python3.11"
    assert found["opt/conda/bin/pure"] == "775"
    assert found["opt/conda/lib/python3.11/site-packages/pure.py"] == "644"
    assert found["etc/motd"] == "644"
    assert {f"opt/conda/conda-meta/{item.dist}.json" for item in PACKAGES[:3]} <= set(found)
    assert "opt/conda/share/data.bin" not in found
    assert "opt/conda/share/data.bin" in contents(gpu.layout)
    image = open_built(site.workspace, VERSION, "cpu", "linux-64").image
    assert image.runtime["Env"] == [
        "PATH=/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CONDA_PREFIX=/opt/conda",
        "IMAGE_VERSION=1.0.0",
    ]
    assert image.runtime["Labels"] == {
        "org.opencontainers.image.title": "Site",
        "org.opencontainers.image.version": "1.0.0",
        "lockyard.image-type": "cpu",
    }
    assert image.config["created"] == "2025-01-01T00:00:00Z"
    assert image.validate() == []
    index = json.loads((cpu.layout / "index.json").read_text())
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "1.0.0-cpu"
    assert index["manifests"][0]["platform"] == {"architecture": "amd64", "os": "linux"}


def test_the_release_s_texts_are_written_and_are_no_input(make_site: MakeSite) -> None:
    site = make_site()
    first = site.digests()
    place = site.root / RELEASE
    assert {"CHANGELOG-cpu.md", "CHANGELOG-gpu.md", "RELEASE.md", "RELEASE-NOTE.md"} <= {
        path.name for path in place.iterdir()
    }
    (place / "RELEASE.md").write_text("something else")
    assert site.digests() == first
    assert (place / "RELEASE.md").read_text() != "something else"


def test_no_host_path_is_in_an_image(make_site: MakeSite) -> None:
    site = make_site()
    cpu, _ = site.build(skip_tests=True).images
    for path in (cpu.layout / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    assert stream is None or str(site.root.parent).encode() not in stream.read()
        assert str(site.root.parent).encode() not in data


def test_types_share_layers_and_a_second_build_makes_none(make_site: MakeSite) -> None:
    site = make_site()
    cpu, gpu = site.build(skip_tests=True).images
    assert cpu.rebuilt == cpu.layers
    assert gpu.rebuilt == 2  # what only gpu has, and its history
    before = listing(site.root / "out")
    again = site.build(skip_tests=True).images
    assert [image.rebuilt for image in again] == [0, 0]
    after = listing(site.root / "out")
    assert {name for name in after if after[name] != before.get(name)} <= {
        f"1.0.0/{item}/linux-64/build.json" for item in ("cpu", "gpu")
    }


def test_a_moved_package_makes_its_layer_and_the_history_only(make_site: MakeSite) -> None:
    site = make_site()
    site.build(skip_tests=True)
    newer = replace(TOOL, version="1.1")
    newer.extract(site.source.directory)
    site.lock({"cpu": (PYTHON, newer, PURE)})
    for package in (PYTHON, PURE):  # which are not even read
        shutil.rmtree(site.source.directory / package.dist)
    (image,) = site.build(skip_tests=True, image_types=("cpu",)).images
    record = json.loads((image.layout / "build.json").read_text())
    rebuilt = {layer["name"]: layer["packages"] for layer in record["layers"] if layer["rebuilt"]}
    assert rebuilt.pop("history") == []
    assert [name for names in rebuilt.values() for name in names] == ["tool-1.1-0"]
    assert record["base"] == {"reference": "scratch", "digest": None}
    assert record["manifest_digest"] == image.digest


def test_the_environment_image_alone(make_site: MakeSite) -> None:
    site = make_site()
    (site.root / RELEASE / "Dockerfile").unlink()
    cpu, _ = site.build(skip_tests=True).images
    assert "etc/motd" not in contents(cpu.layout)


def test_the_time_is_that_of_the_newest_package_or_is_stated(make_site: MakeSite) -> None:
    site = make_site()
    site.environ["SOURCE_DATE_EPOCH"] = "1000000000"
    site.build(skip_tests=True)
    image = open_built(site.workspace, VERSION, "cpu", "linux-64").image
    assert image.config["created"] == "2001-09-09T01:46:40Z"
    site.environ["SOURCE_DATE_EPOCH"] = "yesterday"
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        site.build(skip_tests=True)


def tamper(site: Site) -> None:
    (site.source.directory / TOOL.dist / "bin" / "tool").write_text("#!/bin/evil\n")


def run_line(site: Site) -> None:
    with (site.root / RELEASE / "Dockerfile").open("a") as stream:
        stream.write("RUN apt-get update\n")


def classic(site: Site) -> None:
    (site.root / RELEASE / "Dockerfile").write_text("FROM ubuntu\nARG ENV_IN_FILENAME\nRUN x\n")


def stale(site: Site) -> None:
    site.lock({"cpu": PACKAGES[:3]}, input_hash="sha256:" + "0" * 64)


def post_link(site: Site) -> None:
    package = replace(TOOL, files={"bin/.tool-post-link.sh": Node(b"", 0o755)}, build="1")
    package.extract(site.source.directory)
    site.lock({"cpu": (PYTHON, package)})


def refused_script(site: Site) -> None:
    post_link(site)
    path = site.root / "template/v1/variants.toml"
    path.write_text(path.read_text().replace("compile-pyc", 'post-link = "refuse"\ncompile-pyc'))


def scratch_python(site: Site) -> None:
    path = site.root / "template/v1/variants.toml"
    path.write_text(path.read_text().replace("compile-pyc = false", "compile-pyc = true"))


def bad_plan(site: Site) -> None:
    (site.root / RELEASE / "layers.json").write_text('{"schema": 1, "layers": {"tool": "a"}}')


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (tamper, HashMismatchError, r"package tool-1\.0-0 in the cache is damaged: bin/tool"),
        (run_line, BuildError, rf"{RELEASE}/Dockerfile:7 has RUN, and there is no container engine"),
        (classic, BuildError, rf"{RELEASE}/Dockerfile is a classic Dockerfile"),
        (stale, StaleLockError, "the lock of 1.0.0 is not current: cpu is stale"),
        (post_link, BuildError, "post-link scripts: the base scratch has no files, so no program runs in it"),
        (refused_script, BuildError, r"tool-1\.0-1 has a post-link script, and variants.toml refuses it"),
        (scratch_python, BuildError, "compiling Python modules: the base scratch has no files"),
        (bad_plan, ConfigError, r"layers\.json does not name pure, python"),
    ],
)
def test_a_failed_build_leaves_the_old_image(
    fault: Callable[[Site], None], error: type[LockyardError], message: str, make_site: MakeSite
) -> None:
    site = make_site()
    site.build(skip_tests=True, image_types=("cpu",))
    site.cache = site.cache.with_name("empty-cache")
    before = listing(site.root / "out")
    fault(site)
    with pytest.raises(error, match=message):
        site.build(skip_tests=True, image_types=("cpu",))
    assert listing(site.root / "out") == before
    assert not list(site.cache.rglob("*.new-*"))


def test_a_damaged_layer_in_the_cache_is_made_again(make_site: MakeSite) -> None:
    site = make_site()
    expected = site.digests()
    for blob in (site.cache / "blobs" / "v1" / "sha256").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    assert site.digests() == expected
    contents(site.root / "out" / "1.0.0" / "cpu" / "linux-64")


def record_of(site: Site, image_type: str = "cpu") -> Record:
    path = site.root / "out" / "1.0.0" / image_type / "linux-64" / "tests.json"
    return parse_record(path.read_text(), source="tests.json")


def test_green_tests_leave_a_record_that_is_believed(make_site: MakeSite) -> None:
    site = make_site(variant='pytest-flags = ["--use-gpu"]')
    images = site.build().images
    assert [image.tests.executed for image in images if image.tests] == [1, 1]
    path = images[0].layout / "tests.json"
    layout = open_built(site.workspace, VERSION, "cpu", "linux-64")
    verify_record(
        path.read_text(), manifest=layout.image.digest, suite=suite_digest(suite_of(site.workspace, VERSION), ["--use-gpu"]),
        image_type="cpu", platform="linux-64", source="tests.json",
    )  # fmt: skip
    request = site.sandbox.requests[0]
    assert request.argv[0] == "/opt/conda/bin/python"
    assert request.argv[-1] == "--use-gpu"
    assert [writable for _, _, writable in request.binds] == [False, True]
    assert not list((site.root / ".lockyard").glob(".*"))


def test_red_tests_are_an_error_and_a_red_record(make_site: MakeSite) -> None:
    site = make_site()
    site.sandbox = Sandbox("<failure>line\nassert 1 == 2</failure>", exit_code=1)
    with pytest.raises(ImageTestError, match="image tests of cpu linux-64 failed: 0 passed, 1 failed") as error:
        site.build()
    assert "  assert 1 == 2" in error.value.details
    assert any(line.startswith("image tests of gpu linux-64 failed") for line in error.value.details)
    assert [record_of(site, name).count("failed") for name in ("cpu", "gpu")] == [1, 1]


def test_all_images_are_built_before_the_first_test(make_site: MakeSite) -> None:
    site = make_site()
    site.sandbox = Sandbox("<failure>no</failure>", exit_code=1)
    with pytest.raises(ImageTestError):
        site.build()
    assert (site.root / "out" / "1.0.0" / "gpu" / "linux-64" / "index.json").is_file()


def test_only_skipped_tests_are_no_tests(make_site: MakeSite) -> None:
    site = make_site()
    site.sandbox = Sandbox("<skipped/>")
    with pytest.raises(ImageTestError, match="none was executed"):
        site.build()


@pytest.mark.parametrize(("exit_code", "message"), [(5, "exit code 5"), (2, "exit code 2"), (1, "disagree")])
def test_a_run_that_is_no_test_run_is_an_error(exit_code: int, message: str, make_site: MakeSite) -> None:
    site = make_site()
    site.sandbox = Sandbox(exit_code=exit_code)
    with pytest.raises(ImageTestError, match=message):
        site.build()


def test_the_test_stage_alone(make_site: MakeSite) -> None:
    site = make_site()
    with pytest.raises(BuildError, match=r"cpu linux-64 of 1\.0\.0 is not built"):
        check_release(site.toolbox, site.workspace, VERSION)
    built = site.digests()
    result = check_release(site.toolbox, site.workspace, VERSION, image_types=("gpu",))
    assert [image.digest for image in result.images] == built[1:]
    assert record_of(site, "gpu").green
    assert not (site.root / "out" / "1.0.0" / "cpu" / "linux-64" / "tests.json").exists()


def test_another_platform_is_built_and_its_tests_are_skipped(make_site: MakeSite) -> None:
    site = make_site(variant='platforms = ["linux-s390x"]')
    pure = replace(DATA, noarch="generic", build="1")
    pure.extract(site.source.directory)
    site.lock({"cpu": (pure,), "gpu": (pure,)}, platform="linux-s390x")
    cpu, _ = site.build().images
    assert cpu.tests is None
    assert "linux-s390x image does not run" in cpu.skipped
    assert not site.sandbox.requests
    assert read_layout(cpu.layout).image.config["architecture"] == "s390x"


def test_what_needs_no_container_asks_no_daemon(make_site: MakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    site = make_site()

    def absent(*_: object, **__: object) -> Any:
        raise AssertionError("a daemon was asked")

    def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
        return replace(site.toolbox, log=log, daemon=absent, containers=absent, buildkit=absent)

    for args in (
        ("lock", "1.0.0", "--check"),
        ("create-patch-version-artifacts", "--base-patch-version", "1.0.0"),
        ("diff", "1.0.0", "1.0.0"),
        ("build", "1.0.0", "--no-load"),
        ("test", "1.0.0"),
    ):
        assert run(["--root", str(site.root), *args], environ={}, make=make) == 0, capsys.readouterr().err
    assert "cpu: engine native: nothing here needs a container" in capsys.readouterr().err


def test_a_major_line_may_have_image_tests_of_its_own(make_site: MakeSite) -> None:
    site = make_site()
    own = site.root / "test/test_artifacts/v1"
    own.mkdir(parents=True)
    (own / "test_own.py").write_text("def test_own(): pass\n")
    site.build(image_types=("cpu",))
    assert set(suite_of(site.workspace, VERSION)) == {"test_own.py"}
    assert set(suite_of(site.workspace, Version.parse("2.0.0"))) == {"test_x.py"}


def test_one_red_type_publishes_no_other(
    make_site: MakeSite, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The gpu image is broken, the cpu image is green: nothing of the release goes out."""
    site = make_site()
    one = Sandbox("<failure>no</failure>", exit_code=1)

    @contextlib.contextmanager
    def sandbox(layout: Path) -> Iterator[Sandbox]:
        with (one if "gpu" in layout.parts else site.sandbox)(layout) as runner:
            yield runner

    def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
        return replace(make_toolbox(log, environ), packages=lambda: site.source, sandbox=sandbox, daemon=lambda: None)

    environ = {"LOCKYARD_CACHE_DIR": str(site.cache), "DOCKER_CONFIG": str(tmp_path)}
    args = ["--root", str(site.root), "build", "1.0.0", "--target-ecr-repo", "oci:published"]
    assert run(args, environ=environ, make=make) == 7
    out, err = capsys.readouterr()
    assert "image tests of cpu linux-64: 1 passed" in err
    assert "image tests of gpu linux-64 failed" in err
    assert "@sha256" not in out
    assert not (site.root / "published").exists()


def test_unknown_platforms_and_types_are_named(make_site: MakeSite) -> None:
    site = make_site()
    with pytest.raises(ConfigError, match="cpu has no platform linux-aarch64"):
        site.build(platforms=("linux-aarch64",))
    with pytest.raises(ConfigError, match="unknown image type 'gpuu'"):
        site.build(image_types=("gpuu",))


def test_a_command_runs_in_the_image(make_site: MakeSite) -> None:
    site = make_site()
    site.build(skip_tests=True)
    site.sandbox.exit_code = 3
    assert run_in_image(site.toolbox, site.workspace, VERSION, "cpu", ()).exit_code == 3
    run_in_image(site.toolbox, site.workspace, VERSION, "cpu", ("ls", "-l"))
    assert [request.argv for request in site.sandbox.requests] == [("python",), ("ls", "-l")]
    assert all(request.interactive for request in site.sandbox.requests)


def cli(site: Site, *args: str) -> int:
    return run(["--root", str(site.root), *args], environ={}, make=lambda log, environ: replace(site.toolbox, log=log))


def test_the_commands(make_site: MakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    site = make_site()
    assert cli(site, "build", "1.0.0") == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] + line[3:] for line in lines] == [
        [name, "linux-64", f"out/1.0.0/{name}/linux-64"] for name in ("cpu", "gpu")
    ]
    assert "lockyard run 1.0.0 --image-type cpu -- python" in err
    assert cli(site, "test", "1.0.0", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [image["digest"] for image in answer["images"]] == [line[2] for line in lines]
    assert cli(site, "layers", "explain", "1.0.0") == 0
    shown = capsys.readouterr().out
    assert "\n1 data  1 kB  in gpu linux-64  alone by its size\n" in shown
    assert "\n  data     1.0      1 kB      0/0  planned anew\n" in shown
    assert cli(site, "layers", "explain", "1.0.0", "--json") == 0
    explained = json.loads(capsys.readouterr().out)
    names = [package["name"] for layer in explained["layers"] for package in layer["packages"]]
    assert sorted(names) == ["data", "pure", "python", "tool"]
    site.sandbox.exit_code = 9
    assert cli(site, "run", "1.0.0", "--", "python", "-V") == 9
    site.sandbox = Sandbox("<failure>no</failure>", exit_code=1)
    assert cli(site, "test", "1.0.0", "--rerun") == 7
    run_line(site)
    capsys.readouterr()
    assert cli(site, "build", "1.0.0") == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{RELEASE}/Dockerfile:7" in err
    assert cli(site, "build", "1.0.0", "--build-arg", "x") == 2


def test_what_is_built_and_published_is_one_answer(
    make_site: MakeSite, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site = make_site()

    def call(*args: str) -> tuple[int, str, str]:
        def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
            real = make_toolbox(log, environ)
            return replace(real, packages=lambda: site.source, sandbox=site.sandbox, daemon=lambda: None)

        environ = {"LOCKYARD_CACHE_DIR": str(site.cache), "DOCKER_CONFIG": str(tmp_path)}
        code = run(["--root", str(site.root), "build", "1.0.0", *args], environ=environ, make=make)
        return code, *capsys.readouterr()

    refs = tmp_path / "refs"
    code, out, err = call("--target-ecr-repo", "oci:one", "--image-refs", str(refs), "--json")
    assert code == 0, err
    answer = json.loads(out)
    lines = [
        f"{item['repository']}@{item['digest']} {tag}"
        for item in answer["published"]["published"]
        for tag in item["tags"]
    ]
    assert refs.read_text().splitlines() == lines
    assert len(lines) == 8
    assert {image["digest"] for image in answer["images"]} == {
        item["digest"] for item in answer["published"]["published"]
    }
    code, out, err = call("--target-ecr-repo", "oci:one")
    assert (code, out.splitlines()[2:]) == (0, lines)
    code, out, err = call("--json")
    assert (code, json.loads(out)["published"]) == (0, None)
    shutil.rmtree(site.root / "out")
    for args, message in (
        (("--image-refs", str(refs)), "add --target-ecr-repo"),
        (("--target-ecr-repo", "nowhere"), "neither a repository nor an alias"),
    ):
        code, out, err = call(*args)
        assert (code, out, message in err) == (2, "", True)
    assert not (site.root / "out").exists(), "told before anything is built"


@dataclass
class FakeDaemon:
    """A daemon that remembers what it was given, or refuses it."""

    names: list[str] = field(default_factory=list)
    refusal: str = ""

    def load(self, image: Image, blobs: Mapping[Digest, Path], name: str) -> Loaded:
        if self.refusal:
            raise BuildError(self.refusal)
        assert all(blobs[layer.descriptor.digest].is_file() for layer in image.layers)
        self.names.append(name)
        return Loaded(name, 1, 0)

    def close(self) -> None:
        self.names.append("closed")


def test_a_reachable_daemon_gets_the_images(make_site: MakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    site, daemon = make_site(), FakeDaemon()

    def build(*args: str) -> str:
        toolbox = replace(site.toolbox, daemon=lambda: daemon)
        args = ("--root", str(site.root), "build", "1.0.0", "--skip-tests", *args)
        assert run(args, environ={}, make=lambda log, environ: replace(toolbox, log=log)) == 0
        return capsys.readouterr().err

    err = build()
    assert daemon.names == ["localhost/site:1.0.0-cpu", "localhost/site:1.0.0-gpu", "closed"]
    assert err.splitlines()[-1].strip() == "run it: docker run --rm -it localhost/site:1.0.0-cpu"
    daemon.names.clear()
    assert "lockyard run 1.0.0 --image-type cpu -- python" in build("--no-load").splitlines()[-1]
    assert not daemon.names
    daemon.refusal = "no space"
    err = build()
    assert "localhost/site:1.0.0-cpu is not in Docker: no space" in err
    assert "lockyard run" in err.splitlines()[-1]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_ten_builds_with_different_numbers_of_workers_have_one_digest(
    compression: Compression, make_site: MakeSite
) -> None:
    site = make_site(compression=compression)
    found = set()
    for workers in (1, 2, 3, 4, 5, 6, 7, 8, 16, 64):
        shutil.rmtree(site.cache / "blobs", ignore_errors=True)
        found.add(tuple(site.digests(workers=workers)))
    assert len(found) == 1


def test_a_build_that_finds_all_layers_reads_no_package(make_site: MakeSite) -> None:
    site = make_site()
    before = site.digests()
    for path in site.source.directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()
    assert site.digests() == before
