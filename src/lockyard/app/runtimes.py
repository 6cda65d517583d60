"""Use cases around `runtimes.yaml`: read it, write the Dockerfiles of its runtimes or check them."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from lockyard import fs, pyrelease
from lockyard.app.package import project_lock, reader
from lockyard.app.workspace import decode
from lockyard.errors import ConfigError, DriftError
from lockyard.pyrelease.dockerfiles import TEMPLATE, render_dockerfile
from lockyard.pyrelease.files import write_files
from lockyard.pyrelease.project import Project, Read
from lockyard.pyrelease.runtimes import Runtime, Runtimes, parse_runtimes
from lockyard.suggest import nearest

State = Literal["written", "same", "differs", "missing"]
_SHOWN_LINES = 20
_SUFFIX = TEMPLATE.format(name="")


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """The Dockerfile of a runtime: its path relative to the project's root, its text, and what became of it."""

    runtime: str
    path: str
    text: str
    state: State


def read_runtimes(project: Project, read: Read | None = None) -> Runtimes:
    """Read the project's `runtimes.yaml`; `read` gives a file of another tree than the working one.

    Raises:
        ConfigError: it is missing or wrong, or asks for an extra that the project has not.
        DriftError: its version is not the project's.

    """
    source = project.table.runtimes
    text = (read or reader(project.root))(source)
    if text is None:
        raise ConfigError(f"{source} is missing: it says what images are made", hint="docs/reference/runtimes.md")
    found = parse_runtimes(text, source=source)
    known = {canonicalize_name(extra) for extra in project.extras}
    for runtime in found.by_name.values():
        for extra in runtime.extra:
            if canonicalize_name(extra) not in known:
                there = f"there are {', '.join(project.extras)}" if known else "it has none"
                raise ConfigError(
                    f"{runtime.where('extra')}: {project.name} has no extra {extra!r}; {there}",
                    hint=nearest(extra, project.extras),
                )
    if found.pkg_version != str(project.version):
        raise DriftError(
            f"{source}:{found.pkg_version_line}: pkg_version is {found.pkg_version}, and {project.name} is {project.version}",
            hint="lockyard package bump writes both; lockyard package bump --check finds all copies",
        )
    return found


def templates(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return file name → text of the base templates: the shipped ones, with `own` over them."""
    shipped = fs.read_tree(Path(pyrelease.__file__).parent / "templates")
    return {name: file.data.decode() for name, file in shipped.items()} | dict(own or {})


def own_templates(directory: Path) -> dict[str, str]:
    """Return the base templates in a directory.

    Raises:
        ConfigError: it holds none.

    """
    found = {
        name: decode(fs.read_file(directory / name) or b"", str(directory / name))
        for name in fs.names(directory)
        if name.endswith(_SUFFIX)
    }
    if not found:
        raise ConfigError(f"{directory} has no base template", hint=f"name it {TEMPLATE.format(name='NAME')}")
    return found


def generate(
    project: Project,
    names: tuple[str, ...] = (),
    *,
    templates_dir: Path | None = None,
    check: bool = False,
    dry_run: bool = False,
) -> tuple[GeneratedFile, ...]:
    """Write the Dockerfiles of the runtimes in `names`, of all without any; with `dry_run` nothing is written.

    Everything is rendered before the first file is written.

    Raises:
        ConfigError: `runtimes.yaml` or a template is wrong.
        DriftError: with `check`, a file is missing or differs from what `runtimes.yaml` gives; nothing is written.

    """
    runtimes = read_runtimes(project)
    library = templates(_own(project, runtimes, templates_dir))
    rendered = [
        (runtime, render_dockerfile(runtime, project.normalized_name, library)) for runtime in runtimes.chosen(names)
    ]
    read = reader(project.root)
    files = [(runtime, text, read(runtime.dockerfile)) for runtime, text in rendered]
    if check:
        _refuse_drift(files)
    if not (check or dry_run):
        changed = {runtime.dockerfile: text.encode() for runtime, text, old in files if old != text}
        with project_lock(project.root):
            write_files(project.root, changed)
    done: State = "differs" if dry_run else "written"
    return tuple(
        GeneratedFile(
            runtime.name, runtime.dockerfile, text,
            "same" if old == text else "missing" if dry_run and old is None else done,
        )
        for runtime, text, old in files
    )  # fmt: skip


def _own(project: Project, runtimes: Runtimes, templates_dir: Path | None) -> dict[str, str]:
    """Return the project's own base templates: of `--templates-dir`, else of the directory that `runtimes.yaml` names."""
    if templates_dir is not None:
        return own_templates(templates_dir)
    if runtimes.templates is None:
        return {}
    return own_templates(fs.inside(project.root, runtimes.templates, source=runtimes.source))


def _refuse_drift(files: list[tuple[Runtime, str, str | None]]) -> None:
    details = []
    wrong = []
    for runtime, text, old in files:
        if old == text:
            continue
        wrong.append(runtime.dockerfile)
        lines = difflib.unified_diff(
            (old or "").splitlines(),
            text.splitlines(),
            runtime.dockerfile,
            "as runtimes.yaml gives it",
            lineterm="",
            n=0,
        )
        details += [f"{runtime.dockerfile} is missing"] if old is None else list(lines)[:_SHOWN_LINES]
    if wrong:
        raise DriftError(
            f"{', '.join(wrong)}: not what {files[0][0].source} gives",
            details=details,
            hint="lockyard runtimes generate --all",
        )
