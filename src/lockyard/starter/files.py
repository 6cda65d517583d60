"""Template files to files: `.j2` is rendered, `dot-NAME` becomes `.NAME`. Pure."""

from collections.abc import Mapping

from lockyard.templates import SUFFIX, render
from lockyard.tree import File, Tree

_DOT = "dot-"


def rendered(assets: Tree, values: Mapping[str, object]) -> Tree:
    """Return the files that the templates give."""
    return Tree({_name(path): _file(path, file, values) for path, file in assets.items()})


def subtree(tree: Tree, directory: str) -> Tree:
    """Return what is below a directory of a tree."""
    start = f"{directory}/"
    return Tree({path.removeprefix(start): file for path, file in tree.items() if path.startswith(start)})


def placed(directory: str, tree: Tree) -> dict[str, File]:
    """Return a tree's files by their paths below a directory."""
    return {f"{directory}/{path}": file for path, file in tree.items()}


def _name(path: str) -> str:
    place, slash, name = path.removesuffix(SUFFIX).rpartition("/")
    return place + slash + (f".{name.removeprefix(_DOT)}" if name.startswith(_DOT) else name)


def _file(path: str, file: File, values: Mapping[str, object]) -> File:
    if not path.endswith(SUFFIX):
        return file
    return File.text(render(file.data.decode(), values, source=path).rstrip("\n") + "\n")
