"""A new Python package with its images: its files, all of them, from a name. Pure."""

import re

from lockyard.errors import ConfigError
from lockyard.starter.files import rendered
from lockyard.tree import Tree

_NAME_RE = re.compile(r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*")
_MODULE = "MODULE"


def package_files(name: str, title: str, assets: Tree) -> Tree:
    """Return the files of a new package, without the Dockerfiles, which `runtimes.yaml` gives.

    Raises:
        ConfigError: the name cannot be that of a package and of its module.

    """
    if not _NAME_RE.fullmatch(name):
        raise ConfigError(
            f"{name!r}: a package's name has lower-case letters, digits, '-', '_' and '.', a letter first"
        )
    module = re.sub(r"[-.]+", "_", name)
    files = rendered(assets, {"name": name, "title": title, "module": module})
    return Tree({path.replace(_MODULE, module): file for path, file in files.items()})
