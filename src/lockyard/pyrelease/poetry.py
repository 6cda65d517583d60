"""What a poetry project asks for, as PEP 508, by poetry's own library. Effects: that library reads the project itself."""

from pathlib import Path

from lockyard.errors import ConfigError


def read_requirements(root: Path) -> dict[str, list[str]]:
    """Return requirements by extra (`extra:NAME`), by group (`group:NAME`) and of the project itself (empty name).

    Raises:
        ConfigError: poetry does not accept the file.

    """
    from poetry.core.factory import Factory

    try:
        package = Factory().create_poetry(root, with_groups=True).package
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"pyproject.toml: poetry does not accept it: {error}") from error
    found: dict[str, list[str]] = {"": []}
    for dependency in package.requires:
        text = dependency.to_pep_508(with_extras=False)
        # Optional ones without an extra cannot be installed by anybody.
        for name in [f"extra:{extra}" for extra in dependency.in_extras] or ([] if dependency.is_optional() else [""]):
            found.setdefault(name, []).append(text)
    for group in package.dependency_group_names(include_optional=True) - {"main"}:
        items = package.dependency_group(group).dependencies
        found[f"group:{group}"] = [item.to_pep_508(with_extras=False) for item in items]
    return {name: sorted(items) for name, items in sorted(found.items())}
