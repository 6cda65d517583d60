"""Dockerfiles of a Python package's images: `runtimes.yaml` and base templates in, text out. No I/O here."""

import json
import re
from collections.abc import Mapping

from lockyard.errors import ConfigError
from lockyard.pyrelease.runtimes import Runtime
from lockyard.suggest import nearest
from lockyard.templates import render

TEMPLATE = "{name}.Dockerfile.j2"
NATIVE = "native"
"""The base template that needs no container: the bundle holds what is installed."""
SITE = "site"
"""Where a bundle has the installed packages."""
PREFIX = "/opt/app"
"""Where an image has them."""
CONTEXT: Mapping[str, str] = {
    "header": "the comment that says by what the file is made",
    "name": "the runtime's name",
    "package": "the Python package's name",
    "pkg_version": "the package's version, as in `runtimes.yaml`",
    "requirement": "the package with its extras and its version, as pip takes it",
    "wheel": "the pattern of the package's wheel in the bundle",
    "prefix": f"where everything is installed, `{PREFIX}`",
    "image": "the base image",
    "maintainer": "who is responsible, empty without one",
    "user": "`user.uid`, `user.gid`, `user.name`",
    "build_packages": "Debian packages of the build stage",
    "final_packages": "Debian packages of the image",
    "requirements": "path of the locked requirements",
    "wheels": "directory of wheels in the bundle, `none` where an index gives them",
    "volumes": "directories that the user may write to",
    "entrypoint": "the words of the entry point as a JSON list",
    "extra": "the package's extras",
    "gpu": "`none` in a CPU image; else `gpu.cuda`, `gpu.minor`, `gpu.cudnn`, `gpu.key`, `gpu.repository`",
    "cuda_packages": "Debian packages of CUDA and cuDNN",
    "keyring": "where the image has the key of CUDA's repository",
    "site": "where the bundle has what is installed for `native`: `dependencies/` and `package/`, each with `lib/` and `bin/`",
    "registry": "the registry of the runtime, `none` without one",
}
"""What a template knows; `docs/reference/runtimes.md` has the table."""


def template_name(base_template: str) -> str:
    """Return the file name of a base template."""
    return TEMPLATE.format(name=base_template)


def render_dockerfile(runtime: Runtime, package: str, library: Mapping[str, str]) -> str:
    """Return the Dockerfile of a runtime of `package`; `library` is file name → text of all base templates.

    Raises:
        ConfigError: there is no such template, it is wrong, or the runtime asks what it cannot do.

    """
    name = template_name(runtime.base_template)
    if name not in library:
        known = [item.removesuffix(template_name("")) for item in library]
        raise ConfigError(
            f"{runtime.where('base_template')}: no base template {runtime.base_template!r}; "
            f"there are {', '.join(sorted(known))}",
            hint=nearest(runtime.base_template, known) or f"write {name} and give --templates-dir",
        )
    _check(runtime)
    text = render(library[name], context(runtime, package), source=name, library=library)
    # Blocks that say nothing leave empty lines.
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def context(runtime: Runtime, package: str) -> dict[str, object]:
    """Return what a template knows of a runtime."""
    extras = f"[{','.join(runtime.extra)}]" if runtime.extra else ""
    return {
        "header": f"Made by `lockyard runtimes generate` from {runtime.source} "
        f"and the base template {runtime.base_template}: edit those.",
        "name": runtime.name,
        "package": package,
        "pkg_version": runtime.pkg_version,
        "requirement": json.dumps(f"{package}{extras}=={runtime.pkg_version}"),
        "wheel": f"dist/{wheel_name(package)}-{runtime.pkg_version}-*.whl",
        "prefix": PREFIX,
        "image": runtime.image,
        "maintainer": runtime.maintainer,
        "user": runtime.user,
        "build_packages": sorted(runtime.build_packages),
        "final_packages": sorted(runtime.final_packages),
        "requirements": runtime.requirements,
        "wheels": runtime.wheels,
        "volumes": runtime.volumes,
        "entrypoint": json.dumps(list(runtime.command or (package,)), ensure_ascii=False),
        "extra": runtime.extra,
        "gpu": runtime.gpu,
        "cuda_packages": cuda_packages(runtime),
        "keyring": keyring(runtime),
        "site": SITE,
        "registry": runtime.registry,
    }


def wheel_name(package: str) -> str:
    """Return a package's name as file names of wheels have it (binary distribution format, "escaping").

    >>> wheel_name("Lab-Service.core")
    'lab_service_core'
    """
    return re.sub(r"[-_.]+", "_", package).lower()


def cuda_packages(runtime: Runtime) -> tuple[str, ...]:
    """Return the Debian packages of CUDA's run-time libraries, and of cuDNN where it is asked for, as NVIDIA names them."""
    if runtime.gpu is None:
        return ()
    major, _, _ = runtime.gpu.cuda.partition(".")
    found = (f"cuda-libraries-{runtime.gpu.minor.replace('.', '-')}",)
    if runtime.gpu.cudnn is None:
        return found
    line, _, exact = runtime.gpu.cudnn.partition(".")
    return (*found, f"libcudnn{line}-cuda-{major}{f'={line}.{exact}*' if exact else ''}")


def keyring(runtime: Runtime) -> str:
    """Return where the image keeps the key of CUDA's repository, empty without one; apt goes by the suffix."""
    if runtime.gpu is None or runtime.gpu.key is None:
        return ""
    return f"/usr/share/keyrings/cuda-archive-keyring{runtime.gpu.key[-4:]}"


def _check(runtime: Runtime) -> None:
    """Refuse what a base template of ours cannot do."""
    if runtime.base_template == "internal":
        if runtime.wheels is None:
            raise ConfigError(
                f"{runtime.where('base_template')}: internal takes Python packages from the bundle only, "
                f"and {runtime.name} has no wheels",
                hint="add wheels: DIRECTORY; pip download --requirement FILE --dest DIRECTORY fills it",
            )
        if runtime.image.startswith("docker.io/"):
            raise ConfigError(
                f"{runtime.where('image')}: internal begins from a registry of your own, and {runtime.image!r} is public",
                hint="copy the image there and write HOST/NAME:TAG",
            )
    if runtime.base_template == NATIVE:
        gpu = runtime.gpu
        for key in ("build_packages", "final_packages"):
            if getattr(runtime, key):
                raise ConfigError(
                    f"{runtime.where(key)}: native runs nothing, so it installs no {key}",
                    hint="put them into the base image, or take the base template default",
                )
        if gpu is not None and gpu.key is not None:
            raise ConfigError(
                f"{runtime.where('gpu')}: native runs nothing, so it cannot install CUDA with a key",
                hint="leave the key out and begin from an image that has CUDA",
            )
