"""Who requires whom in one environment."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lockyard.conda.lock import LockedPackage


@dataclass(frozen=True)
class Graph:
    """The packages of an environment by name, with what each requires and who requires it; names sorted."""

    packages: Mapping[str, LockedPackage]
    requires: Mapping[str, tuple[str, ...]] = field(init=False)
    required_by: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        requires = {
            name: tuple(
                sorted({word for text in package.depends if (word := spec_name(text)) in self.packages} - {name})
            )
            for name, package in sorted(self.packages.items())
        }
        users: dict[str, list[str]] = {name: [] for name in requires}
        for name, words in requires.items():
            for word in words:
                users[word].append(name)
        object.__setattr__(self, "requires", requires)
        object.__setattr__(self, "required_by", {name: tuple(names) for name, names in users.items()})

    @classmethod
    def of(cls, packages: Iterable[LockedPackage]) -> "Graph":
        """Make the graph of an environment."""
        return cls({package.name: package for package in packages})

    @property
    def is_known(self) -> bool:
        """Whether the lock says what packages require; an adopted one does not."""
        return any(package.depends for package in self.packages.values())

    def closure(self, roots: Iterable[str]) -> frozenset[str]:
        """Return the roots and everything that they require, however far."""
        found: set[str] = set()
        todo = [name for name in roots if name in self.packages]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.requires[name]
        return frozenset(found)

    def paths_to(self, name: str, direct: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Return for each direct package that leads to `name` its shortest path, ends included; short ones first."""
        before: dict[str, str | None] = {name: None}
        todo = deque([name])
        while todo:
            current = todo.popleft()
            for user in self.required_by[current]:
                if user not in before:
                    before[user] = current
                    todo.append(user)
        paths = []
        for start in direct:
            if start in before:
                path: list[str] = []
                step: str | None = start
                while step is not None:
                    path.append(step)
                    step = before[step]
                paths.append(tuple(path))
        return tuple(sorted(paths, key=lambda path: (len(path), path)))


def spec_name(text: str) -> str:
    """Return the name that a dependency (`numpy >=1.2,<3`) begins with."""
    return (
        text.split(maxsplit=1)[0].rpartition("::")[2].split("[", 1)[0].split("=", 1)[0].lower() if text.strip() else ""
    )
