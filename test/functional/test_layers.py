"""Layer plans of a distribution on disk: what `lock` reads of the releases before."""

import json
from pathlib import Path

import pytest

from lockyard.app.layers import release_plan
from lockyard.app.workspace import open_workspace
from lockyard.cli.root import run
from lockyard.conda.formats import lock_from_tree, write_lock_json
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.oci.layering import LayerPlan
from lockyard.tree import Tree
from lockyard.version import Version
from support.releases import env_out, release, write_distribution


def _tree(number: int, source: str | None) -> Tree:
    installed = {f"busy{i}": str(number) for i in range(6)} | {f"slow{i}": "1" for i in range(6)}
    text = env_out(installed)
    tree = dict(release(("cpu",), cpu__env__out=text))
    if source is None:
        del tree["source-version.txt"]
    else:
        tree |= release((), **{"source-version__txt": source})
    return Tree(tree)


def _groups(root: Path, version: str) -> set[frozenset[str]]:
    workspace = open_workspace(root)
    tree = workspace.existing_release(Version.parse(version))
    lock = lock_from_tree(tree, "cpu", source="test")
    assert lock is not None
    plan = release_plan(workspace, Version.parse(version), tree, {"cpu": lock})
    return {frozenset(name for name, layer in plan.layers.items() if layer == one) for one in plan.order}


def test_adopted_releases_teach_and_newer_ones_do_not(tmp_path: Path) -> None:
    releases = {f"1.0.{number}": _tree(number, f"1.0.{number - 1}" if number else None) for number in range(9)}
    root = write_distribution(tmp_path, releases, variants="schema = 1\nlayer-budget = 8\n[variants.cpu]\n")
    learned = _groups(root, "1.0.8")
    assert all(len({name[:4] for name in found}) == 1 for found in learned)
    before = _groups(root, "1.0.4")
    write_distribution(root, {"1.0.9": _tree(77, "1.0.8"), "1.1.0": _tree(78, "1.0.4")})
    (root / "template/v1/variants.toml").write_text("schema = 1\nlayer-budget = 8\n[variants.cpu]\n")
    assert _groups(root, "1.0.4") == before


VARIANTS = "schema = 1\nlayer-budget = 8\n[variants.cpu]\n[variants.gpu]\n"


def _history(root: Path) -> Path:
    """Five adopted releases; `busy` packages change in each, `rare` in the last, `slow` never; `cuda` is gpu's alone."""
    releases = {}
    for number in range(5):
        cpu = {f"busy{i}": str(number) for i in range(6)} | {f"slow{i}": "1" for i in range(6)}
        cpu["rare"] = "2" if number == 4 else "1"
        tree = dict(release(cpu__env__out=env_out(cpu), gpu__env__out=env_out(cpu | {"cuda": str(number)})))
        if not number:
            del tree["source-version.txt"]
        else:
            tree |= release((), **{"source-version__txt": f"1.0.{number - 1}"})
        releases[f"1.0.{number}"] = Tree(tree)
    return write_distribution(root, releases, variants=VARIANTS)


def _explain(root: Path, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert run(["--root", str(root), "layers", "explain", *args], environ={}) == 0
    return capsys.readouterr().out


def test_explain_tells_what_changed_how_often_and_why_it_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _history(tmp_path)
    kept = {f"slow{i}": "slow" for i in range(6)} | {f"busy{i}": "mixed" for i in range(6)}
    base = LayerPlan({**kept, "rare": "mixed", "cuda": "cuda"}, ("slow", "mixed", "cuda"))
    (root / "build_artifacts/v1/v1.0/v1.0.3/layers.json").write_text(base.to_json())
    told = json.loads(_explain(root, capsys, "1.0.4", "--json"))
    assert told["releases"] == 3
    placed = {item["name"]: (layer["name"], item) for layer in told["layers"] for item in layer["packages"]}
    layer, slow = placed["slow0"]
    assert layer == "slow"
    assert (slow["changes"], slow["seen"], slow["why"]) == (0, 3, "kept: nothing in its layer changed")
    layer, busy = placed["busy0"]
    assert (busy["changes"], busy["seen"]) == (3, 3)
    assert busy["why"].startswith("moved: busy0, busy1, busy2 and 4 more changed, so its layer mixed is sent again")
    assert layer != placed["rare"][0]
    assert placed["rare"][1]["changes"] == 0
    text = _explain(root, capsys, "1.0.4")
    assert text.startswith("1.0.4: ")
    assert " planned from 3 older release changes; 100% of the packages have no known size\n" in text
    assert "\n  slow0  " in text


def test_explain_of_one_type_shows_the_plan_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `layers.json` the plan is made as `lock` would make it, for all types."""
    root = _history(tmp_path)

    def layers(*args: str) -> dict[str, set[str]]:
        told = json.loads(_explain(root, capsys, "1.0.4", "--json", *args))
        return {layer["name"]: {item["name"] for item in layer["packages"]} for layer in told["layers"]}

    both, cpu = layers(), layers("--image-type", "cpu")
    assert "cuda" in {name for names in both.values() for name in names}
    assert cpu == {layer: names - {"cuda"} for layer, names in both.items() if names - {"cuda"}}


def test_sizes_come_from_every_lock_of_the_catalog(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adopted list has none; another release's lock knows that very file, or others of that name."""
    root = _history(tmp_path)

    def locked(name: str, version: str, size: int) -> LockedPackage:
        url = f"https://conda.anaconda.org/conda-forge/linux-64/{name}-{version}-h0_0.conda"
        return LockedPackage(
            name=name, version=version, build="h0_0", url=url, subdir="linux-64", md5="0" * 32, size=size
        )

    packages = (locked("busy0", "4", 4000), locked("slow0", "9", 70), locked("zlib", "1", 50))
    lock = Lock(image_type="cpu", platforms={"linux-64": packages}, channels=("conda-forge",))
    write_distribution(root, {"1.1.0": Tree(release((), cpu__lock__json=write_lock_json(lock)))}, variants=VARIANTS)
    (root / "build_artifacts/v1/v1.1/v1.1.1").mkdir(parents=True)
    (root / "build_artifacts/v1/v1.1/v1.1.1/cpu.lock.json").write_text('{"packages": 3}')
    told = json.loads(_explain(root, capsys, "1.0.4", "--json"))
    found = {item["name"]: (item["size"], item["estimated"]) for layer in told["layers"] for item in layer["packages"]}
    assert found["busy0"] == (4000, False)
    assert found["slow0"] == (70, True)
    assert found["slow1"] == (70, True)
    assert told["unknown_sizes"] == pytest.approx(13 / 14)
