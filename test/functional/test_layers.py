"""Layer plans of a distribution on disk: what `lock` reads of the releases before."""

from pathlib import Path

from lockyard.app.layers import release_plan
from lockyard.app.workspace import open_workspace
from lockyard.conda.formats import lock_from_tree
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
