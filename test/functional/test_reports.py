"""The reports from the command line, on a small distribution with real locks and a channel index on disk."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lockyard import fs
from lockyard.cli.output import ConsoleLog
from lockyard.cli.root import make_toolbox, run
from lockyard.conda.formats import write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.oci.values import Descriptor, MediaType
from lockyard.ports import Log, Toolbox
from lockyard.version import Version, release_dir
from support.index import record, write_index
from support.registry_server import running_registry
from support.require import ROOT, need

Run = Callable[..., tuple[int, str, str]]
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
INDEX = [
    record("python", "3.11.1", size=1_000_000, license="PSF-2.0"),
    record("python", "3.11.9", day=20, size=1_000_000),
    record("python", "3.12.0", day=30, size=1_000_000),
    record("six", "1.16.0", day=-100, depends=["python >=3"], size=20_000),
    record("polars", "1.0.0", depends=["python >=3", "arrow"], size=400_000),
    record("arrow", "2.0.0", size=300_000),
]


class FixedClock:
    def now(self) -> dt.datetime:
        return NOW


def locked(*dists: str) -> tuple[LockedPackage, ...]:
    """Packages of the index as a lock has them."""
    found = {f"{item['name']}-{item['version']}": item for item in INDEX}
    names = ("name", "version", "build", "subdir", "md5", "sha256", "size", "timestamp")
    return tuple(
        LockedPackage(
            **{name: found[dist][name] for name in names}, depends=tuple(found[dist]["depends"]), channel="channel",
            url=f"file:channel/noarch/{dist}-{found[dist]['build']}.conda", license=found[dist].get("license"),
        )
        for dist in dists
    )  # fmt: skip


def add(root: Path, version: str, env_in: str, *dists: str, source: str = "1.0.0") -> None:
    """Write a locked release of the type cpu."""
    place = root / release_dir(Version.parse(version))
    lock = Lock(
        image_type="cpu", platforms={"linux-64": locked(*dists)}, channels=("file:channel",),
        input_hash=f"sha256:{'0' * 64}",
    )  # fmt: skip
    files = {"cpu.env.in": env_in, "cpu.lock.json": write_lock_json(lock)}
    files |= {"source-version.txt": source} if source else {}
    for name, text in files.items():
        fs.atomic_write(place / name, text.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "small"
    fs.atomic_write(root / "lockyard.toml", b'name = "small"\ntitle = "Small"\n[support]\nminor = 6\n')
    fs.atomic_write(root / "template/v1/variants.toml", b'schema = 1\nchannels = ["file:channel"]\n[variants.cpu]\n')
    write_index(root / "channel", INDEX)
    add(root, "1.0.0", "python\nsix\n", "python-3.11.1", "six-1.16.0", source="")
    add(root, "1.0.1", "python\nsix\npolars\n", "python-3.11.1", "six-1.16.0", "arrow-2.0.0", "polars-1.0.0")
    return root


@pytest.fixture
def lockyard(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(root)

    def make(log: Log, environ: object) -> Toolbox:
        return replace(make_toolbox(log, {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}), clock=FixedClock())

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args, environ={}, make=make)
        out, err = capsys.readouterr()
        return code, out, err

    return call


PLACE = "build_artifacts/v1/v1.0/v1.0.1"
TEXTS = {
    "generate-changelog": "CHANGELOG-cpu.md",
    "generate-release-notes": "RELEASE.md",
    "generate-version-release-note": "RELEASE-NOTE.md",
}


@pytest.mark.parametrize(("command", "name"), TEXTS.items())
def test_texts_are_written_once_and_checked(lockyard: Run, root: Path, command: str, name: str) -> None:
    assert lockyard(command, "1.0.1", "--check")[0] == 8
    code, printed, _ = lockyard(command, "1.0.1", "--dry-run")
    assert (code, (root / PLACE / name).exists()) == (0, False)
    assert lockyard(command, "1.0.1")[:2] == (0, f"{PLACE}/{name}\n")
    assert (root / PLACE / name).read_text() == printed
    stamp = (root / PLACE / name).stat().st_mtime_ns
    assert "is right already" in lockyard(command, "1.0.1")[2]
    assert (root / PLACE / name).stat().st_mtime_ns == stamp
    assert lockyard(command, "1.0.1", "--check")[0] == 0
    (root / PLACE / name).write_text("mine")
    code, _, err = lockyard(command, "1.0.1", "--check")
    assert code == 8
    assert f"{PLACE}/{name}" in err
    assert (root / PLACE / name).read_text() == "mine"


def test_check_of_all_passes_over_adopted_releases_unless_named(lockyard: Run, root: Path) -> None:
    for version in ("1.0.0", "1.0.1"):
        lockyard("generate-release-notes", version)
    place = root / "build_artifacts/v1/v1.0/v1.0.2"
    text = f"# platform: linux-64\n@EXPLICIT\nhttps://conda.anaconda.org/c/noarch/six-1.16.0-h_0.conda#{'0' * 32}\n"
    for name, data in {"cpu.env.out": text, "cpu.env.in": "six\n", "source-version.txt": "1.0.1"}.items():
        fs.atomic_write(place / name, data.encode())
    fs.atomic_write(place / "RELEASE.md", b"# an older format\n")
    code, _, err = lockyard("generate-release-notes", "--check")
    assert code == 0
    assert "passed over 1 release" in err
    assert "checked 2 releases" in err
    assert lockyard("generate-release-notes", "1.0.2", "--check")[0] == 8
    lockyard("generate-release-notes", "1.0.2")
    assert "checked 3 releases" in lockyard("generate-release-notes", "--check")[2]
    (root / PLACE / "RELEASE.md").unlink()
    assert lockyard("generate-release-notes", "--check")[0] == 8


def test_a_missing_base_is_named(lockyard: Run, root: Path) -> None:
    (root / PLACE / "source-version.txt").write_text("1.0.7")
    code, _, err = lockyard("generate-changelog", "1.0.1")
    assert code == 2
    assert f"{PLACE}/source-version.txt: there is no release 1.0.7" in err


def test_which_release(lockyard: Run) -> None:
    assert "which release?" in lockyard("generate-changelog")[2]
    assert "two versions" in lockyard("generate-changelog", "1.0.0", "--target-patch-version", "1.0.1")[2]


def test_size_report_and_budget(lockyard: Run) -> None:
    code, out, err = lockyard("generate-size-report", "1.0.1", "--validate")
    assert code == 8
    assert "| cpu | packages | 1.02 MB | 1.72 MB | +700 kB | +68.6 % |" in out
    assert "2 new packages weigh 700 kB, 68.6 % of the base (budget 5 %); the biggest is polars" in err
    code, out, err = lockyard("generate-size-report", "1.0.1", "--validate", "--budget", "70", "--json")
    assert code == 0
    assert json.loads(out)["types"]["cpu"]["new_packages"] == 700_000
    assert "within the budget of 70 %" in err


def test_the_first_release_has_no_base(lockyard: Run) -> None:
    code, _, err = lockyard("generate-size-report", "1.0.0")
    assert code == 2
    assert "--base V" in err


def test_sizes_of_images_from_a_repository(lockyard: Run, tmp_path: Path) -> None:
    with running_registry() as server:
        port = make_toolbox(ConsoleLog(), {"DOCKER_CONFIG": str(tmp_path)}).registry(server.repository("team/image"))
        for version, size in (("1.0.0", 1000), ("1.0.1", 3000)):
            parts = []
            for data in (b"{}", bytes(size)):
                (tmp_path / "blob").write_bytes(data)
                parts.append(Descriptor.of(MediaType.LAYER, data))
                port.upload_blob(tmp_path / "blob", str(parts[-1].digest), len(data), progress=lambda _: None)
            config, layer = (part.to_json() for part in parts)
            manifest = {"schemaVersion": 2, "mediaType": MediaType.MANIFEST, "config": config, "layers": [layer]}
            port.put_manifest(f"{version}-cpu", json.dumps(manifest).encode(), MediaType.MANIFEST)
        port.close()
        code, out, err = lockyard("generate-size-report", "1.0.1", "--repository", server.repository("team/image"))
    assert (code, err) == (0, "")
    assert "| cpu | image | 1 kB | 3 kB | +2 kB | +199.6 % |" in out


def test_staleness_report_reads_the_index(lockyard: Run, root: Path) -> None:
    (root / "counts.txt").write_text("python 1000000\n")
    code, out, _ = lockyard("generate-staleness-report", "1.0.1", "--downloads", "counts.txt")
    assert code == 0
    assert "| python | 3.11.1 | 3.11.9 | 3.12.0 | minor | 44 | 24 | 1,000,000 |" in out
    assert "1 of 3 packages could be newer" in out
    (root / "counts.txt").write_bytes(b"python 1\n\xff 2\n")
    code, _, err = lockyard("generate-staleness-report", "1.0.1", "--downloads", "counts.txt")
    assert (code, "counts.txt:2: not UTF-8 text" in err) == (2, True)
    value = json.loads(lockyard("generate-staleness-report", "1.0.1", "--all", "--json")[1])["types"]["cpu"]
    assert [item["name"] for item in value if item["direct"]] == ["python", "polars", "six"]
    assert len(value) == 4


def test_dependency_report(lockyard: Run) -> None:
    code, out, _ = lockyard("generate-dependency-report", "1.0.1")
    assert code == 0
    assert "- **polars** brings 2 packages, 700 kB\n  - polars 1.0.0, 400 kB\n    - arrow 2.0.0, 300 kB\n" in out


def test_why(lockyard: Run) -> None:
    code, out, _ = lockyard("why", "arrow")
    assert (code, out) == (
        0,
        "cpu 1.0.1: arrow 2.0.0, indirect\n  required by polars  arrow\n  polars -> arrow\n",
    )
    code, _, err = lockyard("why", "arow")
    assert code == 2
    assert "did you mean 'arrow'?" in err


def test_support(lockyard: Run, root: Path) -> None:
    code, out, _ = lockyard("support")
    assert code == 0
    assert "| 1.0 | 1.0.1 | 2026-01-15 | 2026-07-15 | supported |" in out
    path = root / "lockyard.toml"
    path.write_text(path.read_text() + 'released = { "1.0" = 2025-06-30 }\n')
    assert json.loads(lockyard("support", "--json")[1])["lines"][1]["state"] == "ended"


def test_scan(lockyard: Run, root: Path) -> None:
    report = {
        "matches": [{"vulnerability": {"id": "CVE-1", "severity": "High"}, "artifact": {"name": "six", "version": "1"}}]
    }
    (root / "r.json").write_text(json.dumps(report))
    code, out, err = lockyard("scan", "1.0.1", "--report", "cpu=r.json")
    assert code == 7
    assert "high      CVE-1  six      1          -         cpu" in out
    assert "1 vulnerability of severity high or above" in err
    assert lockyard("scan", "1.0.1", "--report", "r.json", "--threshold", "critical")[0] == 0
    (root / "scan-allow.toml").write_text('[[allow]]\nid = "CVE-1"\nreason = "not reachable"\nexpires = 2026-03-01\n')
    assert lockyard("scan", "1.0.1", "--report", "r.json", "--json")[0] == 0
    (root / "scan-allow.toml").write_text('[[allow]]\nid = "CVE-1"\nreason = "not reachable"\nexpires = 2026-02-28\n')
    code, _, err = lockyard("scan", "1.0.1", "--report", "r.json")
    assert code == 7
    assert "expired on 2026-02-28" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "where are the findings?"),
        (("--report", "gpu=r.json"), "there is no image type 'gpu'"),
        (("--report", "none.json"), "there is no file none.json"),
        (("--repository", "example.com/a"), "no private repository of Amazon ECR"),
        (("--report", "r.json", "--allow-list", "none.toml"), "there is no allow-list none.toml"),
    ],
)
def test_scan_errors(lockyard: Run, root: Path, args: tuple[str, ...], words: str) -> None:
    (root / "r.json").write_text('{"matches": []}')
    code, _, err = lockyard("scan", "1.0.1", *args)
    assert code == 2
    assert words in err


def test_ecr_findings_of_all_pages() -> None:
    from lockyard.registry.ecr import EcrAccess
    from lockyard.registry.places import parse_ecr

    class ScanNotFoundException(Exception):  # noqa: N818 - boto3's own name
        pass

    class Api:
        exceptions = type("E", (), {"ScanNotFoundException": ScanNotFoundException})
        status = "COMPLETE"

        def describe_image_scan_findings(self, **request: object) -> dict[str, object]:
            assert request["imageId"] == {"imageTag": "1.0.1-cpu"}
            if self.status == "none":
                raise ScanNotFoundException
            page = 2 if request.get("nextToken") else 1
            answer: dict[str, object] = {
                "imageScanStatus": {"status": self.status},
                "imageScanFindings": {"findings": [{"name": f"CVE-{page}", "severity": "LOW"}]},
            }
            return answer if page == 2 else {**answer, "nextToken": "more"}

    place = parse_ecr("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/image")
    assert place is not None
    api = Api()
    access = EcrAccess(place, now=lambda: NOW, make_client=lambda service, region: api)
    found = json.loads(access.scan_findings(place, "1.0.1-cpu") or b"")
    assert [item["name"] for item in found["imageScanFindings"]["findings"]] == ["CVE-1", "CVE-2"]
    for status in ("IN_PROGRESS", "none"):
        api.status = status
        assert access.scan_findings(place, "1.0.1-cpu") is None


def test_the_toolbox_has_an_index_and_scans(tmp_path: Path) -> None:
    toolbox = make_toolbox(ConsoleLog(), {"LOCKYARD_CACHE_DIR": str(tmp_path)})
    assert toolbox.index() is not None
    assert toolbox.scans() is not None


@pytest.mark.parametrize("command", TEXTS)
def test_the_texts_of_this_repository_s_own_releases_are_current(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["--root", str(ROOT), command, "--check"], environ={})
    assert code == 0, f"lockyard {command} VERSION: {capsys.readouterr().err}"


def test_dates_of_releases_without_timestamps_come_from_git(lockyard: Run, root: Path) -> None:
    import os
    import subprocess

    need("git")
    place = root / "build_artifacts/v1/v1.2/v1.2.0"
    text = f"# platform: linux-64\n@EXPLICIT\nhttps://conda.anaconda.org/c/noarch/six-1.16.0-h_0.conda#{'0' * 32}\n"
    for name, data in {"cpu.env.out": text, "cpu.env.in": "six\n"}.items():
        fs.atomic_write(place / name, data.encode())
    assert "| 1.2 | 1.2.0 | unknown | unknown | unknown |" in lockyard("support")[1]
    when = {"GIT_AUTHOR_DATE": "2026-02-10T12:00:00Z", "GIT_COMMITTER_DATE": "2026-02-10T12:00:00Z"}
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(
            ["git", "-C", str(root), *who, *words], check=True, capture_output=True, env={**os.environ, **when}
        )
    assert "| 1.2 | 1.2.0 | 2026-02-10 | 2026-08-10 | supported |" in lockyard("support")[1]
