"""`lock` and `diff` from the command line, with the real solver on small indexes."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli import root as cli
from lockyard.conda.formats import read_lock_json
from lockyard.conda.lock import Lock
from support.index import record, write_index
from support.require import ROOT

pytestmark = pytest.mark.integration

TWO = 'platforms = ["linux-64", "linux-aarch64"]\n'


@dataclass
class Distribution:
    root: Path
    capture: pytest.CaptureFixture[str]

    def channel(self, *records: dict[str, Any]) -> None:
        write_index(self.root / "channel", records)

    def variants(self, **types: str) -> None:
        path = self.root / "template/v0/variants.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "".join(f"[variants.{name}]\n{text}\n" for name, text in types.items())
        path.write_text(f'schema = 1\nchannels = ["file:channel"]\n{body}')

    def release(self, version: str, base: str | None = None, **files: Iterable[str]) -> None:
        place = self.place(version)
        place.mkdir(parents=True, exist_ok=True)
        for name, lines in files.items():
            file_name = f"{name}.env.in" if "_" not in name else f"{name.replace('_', '.', 1)}_env.in"
            (place / file_name).write_text("".join(f"{line}\n" for line in lines))
        if base is not None:
            (place / "source-version.txt").write_text(base)

    def place(self, version: str) -> Path:
        return self.root / f"build_artifacts/v0/v0.1/v{version}"

    def run(self, *args: str, code: int = 0) -> tuple[str, str]:
        self.capture.readouterr()
        found = cli.run(
            ["--root", str(self.root), *args],
            environ={"LOCKYARD_CACHE_DIR": str(self.root / "cache"), "COLUMNS": "200"},
        )
        out, err = self.capture.readouterr()
        assert found == code, err
        return out, err

    def lock(self, version: str, kind: str = "cpu") -> Lock:
        return read_lock_json((self.place(version) / f"{kind}.lock.json").read_text(), kind)

    def versions(self, version: str, kind: str = "cpu", platform: str = "linux-64") -> dict[str, str]:
        return {
            item.name: f"{item.version} {item.build_number}" for item in self.lock(version, kind).packages(platform)
        }

    def reasons(self, version: str, kind: str = "cpu") -> dict[str, str]:
        return {item.name: item.kind for item in self.lock(version, kind).reasons["linux-64"]}

    def listing(self) -> dict[str, bytes]:
        files = sorted(path for path in (self.root / "build_artifacts").rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture
def small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Distribution:
    """0.1.0 is locked at numpy 1.0, pandas 1.0, lib 1.0; then newer ones appear and 0.1.1 is made from it."""
    found = Distribution(tmp_path, capsys)
    (tmp_path / "lockyard.toml").write_text('name = "small"\n')
    found.variants(cpu='virtual-packages = { __glibc = "2.36" }')
    found.channel(*OLD)
    found.release("0.1.0", cpu=["numpy", "pandas"])
    found.run("lock", "0.1.0")
    found.channel(*OLD, *NEW)
    found.release("0.1.1", "0.1.0", cpu=["numpy[version='>=1.0,<2']", "pandas[version='>=1.0']"])
    return found


OLD = (
    record("numpy", "1.0", depends=["lib >=1"]),
    record("pandas", "1.0", depends=["numpy >=1,<1.5"]),
    record("lib", "1.0"),
)
NEW = (
    record("numpy", "1.1", depends=["lib >=1"]),
    record("numpy", "1.9", depends=["lib >=2"]),
    record("pandas", "1.0", 1, depends=["numpy >=1,<1.5"]),
    record("pandas", "1.5", depends=["numpy >=1.9"]),
    record("lib", "1.5"),
    record("lib", "2.0"),
)


def test_nothing_moves_unless_it_is_asked(small: Distribution) -> None:
    out, err = small.run("lock", "0.1.1")
    assert out.splitlines() == [
        f"build_artifacts/v0/v0.1/v0.1.1/{name}"
        for name in ("cpu.conda-lock.yml", "cpu.env.out", "cpu.lock.json", "layers.json")
    ]
    assert "cpu linux-64: 3 packages, 3 kB; the same as in 0.1.0" in err
    assert small.versions("0.1.1") == small.versions("0.1.0") == {"lib": "1.0 0", "numpy": "1.0 0", "pandas": "1.0 0"}
    out, err = small.run("lock", "0.1.1")
    assert out == ""
    assert "nothing changed" in err


def test_update_moves_only_what_it_names(small: Distribution) -> None:
    small.run("lock", "0.1.1")
    _, err = small.run("lock", "0.1.1", "--update", "numpy")
    assert small.versions("0.1.1") == {"lib": "1.0 0", "numpy": "1.1 0", "pandas": "1.0 0"}
    assert small.reasons("0.1.1") == {"numpy": "asked"}
    assert "1.0 h_0" in err
    # A later lock forgets neither the move nor its reason.
    small.run("lock", "0.1.1", "--update", "lib")
    assert small.versions("0.1.1") == {"lib": "2.0 0", "numpy": "1.1 0", "pandas": "1.0 0"}
    assert small.reasons("0.1.1") == {"numpy": "asked", "lib": "asked"}


def test_update_moves_a_package_that_only_has_a_new_build(small: Distribution) -> None:
    small.release("0.1.1", "0.1.0", cpu=["numpy[version='<1.5']", "pandas"])
    small.run("lock", "0.1.1", "--update", "pandas")
    assert small.versions("0.1.1") == {"lib": "1.0 0", "numpy": "1.0 0", "pandas": "1.0 1"}
    assert small.reasons("0.1.1") == {"pandas": "asked"}


def test_update_that_needs_another_package_moves_both(tmp_path: Path, small: Distribution) -> None:
    """The preferred neighbour holds it back: something newer is demanded, and the neighbour's reason names it."""
    small.channel(
        *OLD, record("lib", "2.0", constrains=["numpy >=1.9"]), record("numpy", "1.9"), record("pandas", "1.5")
    )
    small.run("lock", "0.1.1", "--update", "lib")
    assert small.versions("0.1.1") == {"lib": "2.0 0", "numpy": "1.9 0", "pandas": "1.5 0"}
    assert small.reasons("0.1.1") == {"lib": "asked", "numpy": "required by lib", "pandas": "required by numpy"}


def test_update_with_nothing_newer_says_so_and_changes_nothing(small: Distribution) -> None:
    small.release("0.1.1", "0.1.0", cpu=["numpy[version='<1.1']", "pandas[version='==1.0',build='h_0']"])
    small.run("lock", "0.1.1")
    before = small.listing()
    _, err = small.run("lock", "0.1.1", "--update", "numpy")
    assert "cpu: numpy stays: nothing newer fits" in err
    assert small.listing() == before
    _, err = small.run("lock", "0.1.1", "--update", "nunpy", code=2)
    assert "did you mean 'numpy'?" in err


def test_a_range_moves_a_package_and_what_it_needs(small: Distribution) -> None:
    small.release("0.1.1", "0.1.0", cpu=["numpy[version='>=1.9']", "pandas"])
    small.run("lock", "0.1.1")
    assert small.reasons("0.1.1") == {
        "lib": "required by numpy",
        "numpy": "bound",
        "pandas": "required by numpy",
    }


def test_fresh_takes_the_newest(small: Distribution) -> None:
    small.run("lock", "0.1.1", "--fresh")
    assert small.versions("0.1.1") == {"lib": "2.0 0", "numpy": "1.9 0", "pandas": "1.5 0"}
    assert set(small.reasons("0.1.1").values()) == {"fresh"}


def test_a_package_that_is_gone_moves_and_says_why(small: Distribution) -> None:
    small.channel(*OLD[:2], record("lib", "1.5"))
    small.run("lock", "0.1.1")
    assert small.versions("0.1.1")["lib"] == "1.5 0"
    assert small.reasons("0.1.1") == {"lib": "not available any more"}


def test_an_indirect_package_goes_down_only_when_nothing_else_is_possible(small: Distribution) -> None:
    """`lib` must go down for the asked `old`; `other` must not, though its bound is of the same kind."""
    small.channel(*OLD, record("other", "2.0"), record("numpy", "1.2", depends=["lib", "other"]))
    small.release("0.1.0", cpu=["numpy", "pandas"])
    small.run("lock", "0.1.0", "--fresh")
    small.channel(
        *OLD, record("lib", "0.9"), record("old", "1.0", depends=["lib <1"]),
        record("other", "2.0"), record("other", "1.0"), record("numpy", "1.2", depends=["lib", "other"]),
    )  # fmt: skip
    small.release("0.1.1", "0.1.0", cpu=["numpy", "old"])
    _, err = small.run("lock", "0.1.1")
    assert "cpu: went down, as nothing else was possible: lib" in err
    assert small.versions("0.1.1") == {"lib": "0.9 0", "numpy": "1.2 0", "old": "1.0 0", "other": "2.0 0"}
    assert small.reasons("0.1.1") == {"lib": "required by old", "old": "asked", "pandas": "asked"}


def test_a_direct_package_does_not_go_down_either(small: Distribution) -> None:
    """Its spec would allow it; a new package asks for it; the new one's other version does not."""
    small.channel(*OLD, record("lib", "0.9"), record("new", "2", depends=["lib <1"]), record("new", "1"))
    small.release("0.1.1", cpu=["numpy", "pandas", "lib", "new"])
    small.run("lock", "0.1.1")
    assert small.versions("0.1.1") == {"lib": "1.0 0", "numpy": "1.0 0", "pandas": "1.0 0", "new": "1 0"}


def test_what_need_not_move_stays(small: Distribution) -> None:
    """`free` moved only because the solver looked at `tool` first; the tool that was asked for can do with the old one."""
    small.channel(*OLD, record("tool", "1"), record("free", "1"), record("host", "1", depends=["free", "tool"]))
    small.release("0.1.0", cpu=["host"])
    small.run("lock", "0.1.0", "--fresh")
    small.channel(
        record("tool", "1"), record("tool", "2", depends=["host >=2"]), record("free", "1"), record("free", "2"),
        record("host", "1", depends=["free", "tool"]), record("host", "2", depends=["tool", "free >=2"]),
        record("host", "2.1", depends=["tool", "free"]),
    )  # fmt: skip
    small.release("0.1.1", "0.1.0", cpu=["host", "tool >=2"])
    small.run("lock", "0.1.1")
    assert small.versions("0.1.1") == {"tool": "2 0", "host": "2.1 0", "free": "1 0"}
    assert small.reasons("0.1.1") == {"tool": "bound", "host": "required by tool"}


def test_a_reason_names_where_the_change_comes_from(small: Distribution) -> None:
    """`font` and `libfont` each need the new other one; it is `plot` that began it."""

    def fonts(version: str) -> list[dict[str, Any]]:
        return [
            record("font", version, depends=[f"libfont =={version}"]),
            record("libfont", version, constrains=[f"font =={version}"]),
            record("plot", version, depends=["font", f"libfont >={version}"]),
        ]  # fmt: skip

    small.channel(*fonts("1"))
    small.release("0.1.0", cpu=["plot"])
    small.run("lock", "0.1.0", "--fresh")
    small.channel(*fonts("1"), *fonts("2"))
    small.release("0.1.1", "0.1.0", cpu=["plot >=2"])
    small.run("lock", "0.1.1")
    assert small.reasons("0.1.1") == {"plot": "bound", "libfont": "required by plot", "font": "required by libfont"}


def test_types_agree_where_they_can(small: Distribution) -> None:
    small.variants(cpu="", gpu='virtual-packages = { __cuda = "12" }')
    small.channel(*OLD, *NEW, record("cuda", "1", depends=["__cuda", "numpy <1.5"]))
    small.release("0.1.1", cpu=["numpy"], gpu=["numpy", "cuda"])
    (small.place("0.1.1") / "source-version.txt").unlink()
    _, err = small.run("lock", "0.1.1")
    assert small.versions("0.1.1", "gpu")["numpy"] == "1.1 0"
    assert small.versions("0.1.1", "cpu")["numpy"] == "1.1 0"
    assert "types differ" not in err
    small.release("0.1.1", cpu=["numpy[version='>=1.9']"], gpu=["numpy", "cuda"])
    _, err = small.run("lock", "0.1.1")
    assert "types differ in numpy on linux-64: cpu 1.9 h_0, gpu 1.1 h_0 (gpu: cuda excludes the other numpy)" in err


def test_a_direct_package_has_one_version_on_all_platforms(small: Distribution) -> None:
    small.variants(cpu=TWO)
    both = [
        record("a", version, subdir=platform) for version in ("1", "2") for platform in ("linux-64", "linux-aarch64")
    ]
    small.channel(*both, record("a", "3", subdir="linux-64"))
    small.release("0.1.1", cpu=["a"])
    small.run("lock", "0.1.1", "--fresh")
    assert small.versions("0.1.1")["a"] == small.versions("0.1.1", platform="linux-aarch64")["a"] == "2 0"
    small.channel(record("a", "3", subdir="linux-64"), record("a", "2", subdir="linux-aarch64"))
    before = small.listing()
    _, err = small.run("lock", "0.1.1", code=4)
    assert "cpu: a cannot have one version on linux-64 and linux-aarch64" in err
    assert "a: 3 on linux-64, 2 on linux-aarch64" in err
    assert small.listing() == before


def test_platforms_agree_on_the_highest_version_that_all_have(small: Distribution) -> None:
    """Neither platform's newest is to be had on the other; and `b` must follow."""
    small.variants(cpu=TWO)
    small.channel(
        *(record("a", version, subdir="linux-64") for version in ("1", "2", "4")),
        *(record("a", version, subdir="linux-aarch64") for version in ("1", "2", "3")),
        record("b", "1", depends=["a <3"]), record("b", "2", depends=["a >=3"]),
    )  # fmt: skip
    small.release("0.1.1", cpu=["a", "b"])
    small.run("lock", "0.1.1", "--fresh")
    assert small.versions("0.1.1") == small.versions("0.1.1", platform="linux-aarch64") == {"a": "2 0", "b": "1 0"}


def test_a_package_of_one_platform_only(small: Distribution) -> None:
    small.variants(cpu=TWO)
    toml = small.root / "template/v0/variants.toml"
    toml.write_text(toml.read_text().replace("[variants", '[platform-packages]\nx86only = ["linux-64"]\n[variants', 1))
    small.channel(*OLD, record("x86only", "1", subdir="linux-64"))
    small.release("0.1.1", cpu=["numpy", "x86only"])
    small.run("lock", "0.1.1")
    assert "x86only" in small.versions("0.1.1")
    assert "x86only" not in small.versions("0.1.1", platform="linux-aarch64")


def test_a_package_of_one_platform_may_be_bounded_there(small: Distribution) -> None:
    small.variants(cpu=TWO)
    toml = small.root / "template/v0/variants.toml"
    limits = '"numpy <1.9" = ["linux-64"]\n"numpy <1.5" = ["linux-aarch64"]\nx86only = ["linux-64"]'
    toml.write_text(toml.read_text().replace("[variants", f"[platform-packages]\n{limits}\n[variants", 1))
    every = [record("numpy", version) for version in ("1.0", "1.6", "1.9")]
    small.channel(*every, record("x86only", "1", subdir="linux-64"))
    small.release("0.1.1", cpu=["numpy", "x86only"])
    small.run("lock", "0.1.1")
    assert small.versions("0.1.1") == {"numpy": "1.0 0", "x86only": "1 0"}
    toml.write_text(toml.read_text().replace("<1.5", "<=1.6"))
    small.run("lock", "0.1.1", "--check", code=4)
    small.run("lock", "0.1.1", "--update", "numpy")
    assert small.versions("0.1.1", platform="linux-aarch64") == {"numpy": "1.6 0"}
    toml.write_text(toml.read_text().replace("<=1.6", ">=3"))
    _, err = small.run("lock", "0.1.1", code=4)
    assert "variants.toml: platform-packages: numpy >=3" in err


def test_unsatisfiable_specs_name_their_lines_and_write_nothing(small: Distribution) -> None:
    small.release("0.1.1", cpu=["# head", "numpy[version='<1.5']", "pandas[version='>=1.5']"], cpu_pinned=["lib"])
    before = small.listing()
    _, err = small.run("lock", "0.1.1", code=4)
    assert "cpu: no set of packages for linux-64 meets the specs" in err
    assert "build_artifacts/v0/v0.1/v0.1.1/cpu.env.in:2: numpy[version='<1.5']" in err
    assert "build_artifacts/v0/v0.1/v0.1.1/cpu.env.in:3: pandas[version='>=1.5']" in err
    assert "cpu.pinned_env.in" not in err
    assert small.listing() == before


def test_what_would_do_is_tried_not_guessed(small: Distribution) -> None:
    small.release("0.1.1", cpu=["numpy[version='<1.5']", "pandas[version='>=1.5']", "lib"])
    _, err = small.run("lock", "0.1.1", code=4)
    assert "what would do:" in err
    assert "cpu.env.in:1: numpy without its bounds (then it would be 1.9)" in err
    assert "cpu.env.in:2: pandas without its bounds (then it would be 1.0)" in err
    assert "lib without" not in err
    small.release("0.1.1", cpu=["numpy[version='>=1.9']"])
    _, err = small.run("lock", "0.1.1", "--exclude-newer", "2026-01-14", code=4)
    assert "--exclude-newer later than 2026-01-14, or none" in err


def test_a_missing_virtual_package_is_named(small: Distribution) -> None:
    small.channel(*OLD, record("cuda", "1", depends=["__cuda >=12"]))
    small.release("0.1.1", cpu=["cuda"])
    _, err = small.run("lock", "0.1.1", code=4)
    assert "next: state __cuda under virtual-packages of cpu in variants.toml" in err


def test_a_package_that_one_platform_does_not_have_is_named(small: Distribution) -> None:
    small.variants(cpu=TWO)
    small.channel(*OLD, record("x86only", "1", subdir="linux-64"))
    small.release("0.1.1", cpu=["numpy", "x86only"])
    _, err = small.run("lock", "0.1.1", code=4)
    assert "cpu: no channel has x86only for linux-aarch64" in err
    assert "v0.1.1/cpu.env.in:2: x86only" in err
    assert 'platform-packages = { "x86only" = ["linux-64"] } in variants.toml' in err
    small.release("0.1.1", cpu=["numpyy"])
    _, err = small.run("lock", "0.1.1", code=4)
    assert "cpu: no channel has numpyy for linux-64" in err
    assert "next: check the name, or add a channel that has it to channels (now file:channel)" in err


def test_pinned_packages_bind(small: Distribution) -> None:
    small.release("0.1.1", cpu_pinned=["numpy[version='<1.1']"])
    small.run("lock", "0.1.1", "--fresh")
    assert small.versions("0.1.1")["numpy"] == "1.0 0"


def test_an_explicit_list_is_locked_as_it_is(small: Distribution) -> None:
    out = (small.place("0.1.0") / "cpu.env.out").read_text()
    (small.place("0.1.1") / "cpu.env.in").write_text(out)
    small.run("lock", "0.1.1", "--fresh")
    assert small.versions("0.1.1") == small.versions("0.1.0")


def test_exclude_newer_is_kept_in_the_lock(small: Distribution) -> None:
    small.channel(*OLD, record("numpy", "1.4", day=40))
    small.run("lock", "0.1.1", "--fresh", "--exclude-newer", "2026-01-31")
    assert small.versions("0.1.1")["numpy"] == "1.0 0"
    assert small.lock("0.1.1").exclude_newer == "2026-01-31T23:59:59Z"
    small.run("lock", "0.1.1", "--fresh", "--exclude-newer", "2026-03-01T00:00:00+02:00")
    assert small.versions("0.1.1")["numpy"] == "1.4 0"
    _, err = small.run("lock", "0.1.1", "--exclude-newer", "yesterday", code=2)
    assert "is not a date such as" in err


def test_check_tells_by_its_exit_code(small: Distribution) -> None:
    _, err = small.run("lock", "0.1.1", "--check", code=4)
    assert "cpu is missing" in err
    small.run("lock", "0.1.1")
    _, err = small.run("lock", "0.1.1", "--check")
    assert "cpu: current" in err
    small.release("0.1.1", cpu=["numpy", "lib"])
    out, err = small.run("lock", "0.1.1", "--check", "--json", code=4)
    assert json.loads(out)["types"]["cpu"]["state"] == "stale"
    assert "+ numpy; + lib; - numpy[version='>=1.0,<2']" in err
    assert "lockyard lock 0.1.1" in err
    small.run("lock", "0.1.1", "--check", "--fresh", code=2)
    small.run("lock", "0.1.9", "--check", code=2)


def test_check_loads_neither_solver_nor_network(small: Distribution) -> None:
    small.run("lock", "0.1.1")
    code = (
        "import sys\nfrom lockyard.cli.root import run\n"
        "assert run(['--root', sys.argv[1], 'lock', '0.1.1', '--check'], environ={}) == 0\n"
        "print(*sys.modules)\n"
    )
    argv = [sys.executable, "-c", code, str(small.root)]
    done = subprocess.run(argv, env={"PYTHONPATH": str(ROOT / "src")}, check=True, capture_output=True, text=True)
    assert not {"lockyard.conda.solve", "httpx", "conda_lock", "zstandard"} & set(done.stdout.split())


def test_json_says_what_the_table_says(small: Distribution) -> None:
    out, _ = small.run("lock", "0.1.1", "--update", "numpy", "--json")
    value = json.loads(out)
    assert value["changed"] is True
    assert value["types"]["cpu"]["packages"] == {"linux-64": 3}
    assert value["types"]["cpu"]["bytes"] == {"linux-64": 3000}
    assert value["types"]["cpu"]["reasons"] == {
        "linux-64": [{"name": "numpy", "old": "1.0 h_0", "new": "1.1 h_0", "kind": "asked"}]
    }
    assert len(value["written"]) == 4


def test_a_person_sees_what_changes_why_and_how_much(small: Distribution) -> None:
    small.release("0.1.1", "0.1.0", cpu=["numpy[version='>=1.9']"])
    _, err = small.run("lock", "0.1.1", "--dry-run")
    assert (
        "cpu linux-64: 2 packages, 2 kB; since 0.1.0: 2 changed, 1 removed; 2 kB of packages that 0.1.0 does not" in err
    )
    table = [line.split() for line in err.splitlines()]
    assert ["package", "from", "to", "size", "why"] in table
    assert ["numpy", "1.0", "h_0", "1.9", "h_0", "1", "kB", "bound"] in table
    assert ["lib", "1.0", "h_0", "2.0", "h_0", "1", "kB", "required", "by", "numpy"] in table
    assert ["pandas", "1.0", "h_0", "-", "-", "asked"] in table


def test_a_dry_run_shows_and_writes_nothing(small: Distribution) -> None:
    before = small.listing()
    out, err = small.run("lock", "0.1.1", "--fresh", "--dry-run")
    assert out == ""
    assert "would write cpu.lock.json (added)" in err
    assert small.listing() == before


def test_no_host_path_reaches_a_committed_file(small: Distribution) -> None:
    small.run("lock", "0.1.1")
    assert all(str(small.root).encode() not in data for data in small.listing().values())


def test_the_same_inputs_in_another_place_give_the_same_bytes(small: Distribution, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(small.root, tmp_path / "other", ignore=shutil.ignore_patterns("other", "cache", ".lockyard"))
    other = Distribution(tmp_path / "other", small.capture)
    for item in (small, other):
        item.run("lock", "0.1.1", "--fresh")
    assert small.listing() == other.listing()


def test_diff_in_three_forms(small: Distribution) -> None:
    small.release("0.1.1", cpu=["numpy", "lib"])
    small.run("lock", "0.1.1", "--update", "lib")
    value = json.loads(small.run("diff", "0.1.0", "0.1.1", "--json")[0])
    empty: dict[str, Any] = {"changed": {}, "added": {}, "removed": {}, "rebuilt": {}}
    assert value["types"]["cpu"]["direct"] == {
        **empty,
        "changed": {"lib": ["1.0", "2.0"]},
        "removed": {"pandas": "1.0"},
    }
    assert "~ lib" in small.run("diff", "0.1.0", "0.1.1")[0]
    assert "| lib | 1.0 → 2.0 | major |" in small.run("diff", "0.1.0", "0.1.1", "--format", "markdown")[0]
    _, err = small.run("diff", "0.1.0", "0.1.7", code=2)
    assert "there is no release 0.1.7" in err
    _, err = small.run("diff", "0.1.0", "0.1", code=2)
    assert "did you mean 0.1.0?" in err
