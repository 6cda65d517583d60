"""Values of build arguments that an earlier generator left in its own files, read and never run. Pure.

Two forms are known: Python literals, dictionaries with `build_args` and perhaps `image_type`, `pytest_flags`, `image_tag_generator`,
below a major line's number or not; and JSON files `{type}_….json` whose keys are build arguments.
"""

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

_NAME_RE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What a file says of an image type; `major` is `None` where it holds for every line. `tag` is a pattern or `None`."""

    image_type: str
    major: int | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    pytest_flags: tuple[str, ...] = ()
    tag: str | None = None
    where: str


def read_python(text: str, path: str) -> tuple[Generated, ...]:
    """Read the literals of a Python file; what is no literal, or no Python, tells nothing."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(_found(tree, path, None))


def read_json(text: str, path: str, types: Collection[str]) -> Generated | None:
    """Read a JSON file of build arguments whose name begins with an image type."""
    name = path.rsplit("/", 1)[-1]
    image_type = next((item for item in types if name.startswith((f"{item}_", f"{item}.", f"{item}-"))), None)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if image_type is None or not isinstance(value, dict) or not value:
        return None
    args = {key: item for key, item in value.items() if _is_argument(key) and key.isupper() and isinstance(item, str)}
    return Generated(image_type=image_type, args=args, where=path) if len(args) == len(value) else None


def _found(node: ast.AST, path: str, major: int | None) -> Iterator[Generated]:
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if "build_args" in keys:
            found = _generated(node, path, major)
            if found is not None:
                yield found
            return
        for key, value in zip(keys, node.values, strict=True):
            yield from _found(value, path, key if type(key) is int else major)
        return
    for child in ast.iter_child_nodes(node):
        yield from _found(child, path, major)


def _generated(node: ast.Dict, path: str, major: int | None) -> Generated | None:
    value = _literals(node)
    args = value.get("build_args")
    if not isinstance(args, dict):
        return None
    texts = {
        name: str(item) for name, item in args.items() if _is_argument(name) and isinstance(item, str | int | float)
    }
    image_type = value.get("image_type") or texts.get("ENV_IN_FILENAME", "").partition(".")[0]
    if not isinstance(image_type, str) or not image_type:
        return None
    flags, tag = value.get("pytest_flags"), value.get("image_tag_generator")
    return Generated(
        image_type=image_type,
        major=major,
        args=texts,
        pytest_flags=tuple(map(str, flags)) if isinstance(flags, list | tuple) else (),
        tag=tag.replace("{image_version}", "{version}") if isinstance(tag, str) and "{image_version}" in tag else None,
        where=f"{path}:{node.lineno}",
    )


def _is_argument(name: object) -> bool:
    return isinstance(name, str) and _NAME_RE.fullmatch(name) is not None


def _literals(node: ast.Dict) -> dict[str, object]:
    """Return what is literal in a dictionary, of those in it too; what is computed is left out."""
    return {
        key.value: literal
        for key, item in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and (literal := _literal(item)) is not None
    }


def _literal(node: ast.AST) -> object:
    if isinstance(node, ast.Dict):
        return _literals(node)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
