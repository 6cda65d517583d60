"""Use cases around the caches: what is in them, bringing things in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lockyard.conda.channels import parse_channel
from lockyard.errors import ConfigError
from lockyard.ports import Toolbox


@dataclass(frozen=True, slots=True)
class ImportedIndex:
    """A channel whose index is in the cache now: subdir → bytes."""

    channel: str
    address: str
    subdirs: Mapping[str, int]


def add_index(toolbox: Toolbox, channel: str, directory: Path) -> ImportedIndex:
    """Put the index files in `directory` into the cache as those of `channel` (a name or URL).

    Raises:
        ConfigError: the channel is local or malformed, or the directory holds no index that parses.

    """
    from lockyard.conda.indexes import import_index

    parsed = parse_channel(channel, source="CHANNEL")
    if parsed.is_local:
        raise ConfigError(f"{channel} is a directory: its index is read in place, no cache is used")
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}")
    return ImportedIndex(parsed.name, parsed.base, import_index(toolbox.cache_dir, parsed, directory))
