"""Small channels and distributions, made in code."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from demochannel import tree
from demochannel.packages import PLACEHOLDER, Package, archive, repodata, repodata_record

WHEN = datetime(2026, 1, 15, tzinfo=UTC)


def package(
    name: str, version: str = "1.0.0", *, build_number: int = 0, depends: Iterable[str] = (), noarch: bool = False
) -> Package:
    """A package with a script that holds the prefix, a data file and a link."""
    return Package(
        name=name,
        version=version,
        build_prefix="h0",
        build_number=build_number,
        timestamp=WHEN,
        license="MIT",
        depends=tuple(depends),
        noarch="generic" if noarch else None,
        files={
            f"bin/{name}": tree.file(f"#!{PLACEHOLDER}/bin/sh\necho {name} {version}\n".encode(), 0o755),
            f"share/{name}/data.txt": tree.file(f"{name} {version} {build_number}\n".encode() * 50),
            f"share/{name}/link.txt": tree.link("data.txt"),
        },
    )


def write_channel(directory: Path, packages: Iterable[Package]) -> Path:
    """Write a channel of these packages, archives and index."""
    records: dict[str, dict[str, Mapping[str, object]]] = {"linux-64": {}, "noarch": {}}
    for item in packages:
        data = archive(item)
        place = directory / item.subdir
        place.mkdir(parents=True, exist_ok=True)
        (place / item.filename).write_bytes(data)
        records[item.subdir][item.filename] = repodata_record(item, data)
    for subdir, found in records.items():
        (directory / subdir).mkdir(parents=True, exist_ok=True)
        (directory / subdir / "repodata.json").write_bytes(repodata(subdir, found))
    return directory


def write_distribution(root: Path, specs: Mapping[str, Iterable[str]], packages: Iterable[Package] = ()) -> Path:
    """Write a distribution with release 0.1.0 (specs only) and a channel in it; the base is `scratch`."""
    release = root / "build_artifacts" / "v0" / "v0.1" / "v0.1.0"
    release.mkdir(parents=True)
    template = root / "template" / "v0"
    template.mkdir(parents=True)
    (root / "lockyard.toml").write_text(
        'name = "small"\n[repositories]\nfirst = "oci:registry/first"\nsecond = "oci:registry/second"\n'
    )
    variants = "".join(
        f'[variants.{name}]\nvirtual-packages = {{ __glibc = "2.36", __linux = "5.10" }}\n' for name in specs
    )
    (template / "variants.toml").write_text(f'schema = 1\nchannels = ["file:channel"]\n{variants}')
    for name, lines in specs.items():
        text = "".join(f"{line}\n" for line in ("# This file is auto-generated.", *lines))
        (release / f"{name}.env.in").write_text(text)
    write_channel(root / "channel", packages)
    return root
