"""Files of a project changed as one step, effects: all of them or none, whatever is killed when.

What the files held is noted in the state directory first; when the note is still there at the next command, the step was
interrupted, and the files get back what they held.
"""

import base64
import json
import stat
from collections.abc import Mapping
from pathlib import Path

from lockyard import fs
from lockyard.errors import ConfigError

STATE = ".lockyard"
_NOTE = "unfinished-edits.json"


def state_dir(root: Path) -> Path:
    """Return the directory for locks and journals, made, and ignored by git whatever the project ignores."""
    path = root / STATE
    if not (path / ".gitignore").exists():
        fs.atomic_write(path / ".gitignore", b"*\n")
    return path


def write_files(root: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write files (path relative to `root` → bytes) as one step, and return the paths that changed. Modes stay.

    Raises:
        ConfigError: a path leads out of the project.
        OSError: a file cannot be written; all files are as they were.

    """
    targets = {path: fs.inside(root, path, source="the plan") for path in files}
    old = {path: fs.read_file(target) for path, target in targets.items()}
    changed = tuple(path for path, data in files.items() if old[path] != data)
    if not changed:
        return ()
    note = state_dir(root) / _NOTE
    held = {path: None if (data := old[path]) is None else base64.b64encode(data).decode() for path in changed}
    fs.atomic_write(note, json.dumps({"schema": 1, "files": held}, indent=1, sort_keys=True).encode())
    try:
        for path in changed:
            _write(targets[path], files[path])
    except BaseException:
        restore_unfinished(root)
        raise
    note.unlink()
    return changed


def restore_unfinished(root: Path) -> tuple[str, ...]:
    """Undo a step that was interrupted; return a line for each file. Call it with the project's lock held."""
    note = root / STATE / _NOTE
    data = fs.read_file(note)
    if data is None:
        return ()
    try:
        held = json.loads(data)["files"]
        before = {path: None if text is None else base64.b64decode(text) for path, text in held.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{note} is not readable", hint="look at git status, then remove it") from error
    lines = []
    for path, content in before.items():
        target = fs.inside(root, path, source=str(note))
        for half in fs.unfinished(target.parent):
            if half.name.startswith(f".{target.name}.new-"):
                fs.remove(half)
        if fs.read_file(target) != content:
            _write(target, content)
            lines.append(f"restored {path}: an earlier command was interrupted")
    note.unlink()
    return tuple(lines)


def is_unfinished(root: Path) -> bool:
    """Tell whether a step was interrupted, or another command is in the middle of one."""
    return (root / STATE / _NOTE).exists()


def _write(target: Path, content: bytes | None) -> None:
    if content is None:
        target.unlink(missing_ok=True)
        return
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
    fs.atomic_write(target, content, mode)
