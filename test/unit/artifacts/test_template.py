"""Which template a release is made from."""

import pytest

from lockyard.artifacts.request import ReleaseRequest, TemplateSources
from lockyard.artifacts.template import CONTEXT, TemplatePlan, plan_template
from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.tree import File, Tree
from lockyard.version import Bump, Version
from support.releases import LINE_SOURCE, distribution, line


def tree(**files: str) -> Tree:
    return Tree({name.replace("__", ".").replace("_of_", "/"): File.text(text) for name, text in files.items()})


BASE = tree(Dockerfile="base", dirs_of_a="base", cpu__env__in="numpy\n")
MINOR, PREVIOUS, MAJOR = tree(Dockerfile="minor"), tree(Dockerfile="previous"), tree(Dockerfile="major")
SKLEARN = LockedPackage(
    name="scikit-learn",
    version="1.7.1",
    build="py_0",
    url="https://conda.anaconda.org/conda-forge/linux-64/scikit-learn-1.7.1-py_0.conda",
    subdir="linux-64",
)


def choose(version: str, sources: TemplateSources, base: Tree = BASE) -> TemplatePlan:
    request = ReleaseRequest(
        base=Version(1, 4, 3),
        version=Version.parse(version),
        bump=Bump.MINOR,
        distribution=distribution(),
        line=line(),
        line_source=LINE_SOURCE,
        base_tree=base,
        templates=sources,
    )
    return plan_template(request, {"cpu": {"scikit-learn": SKLEARN}})


@pytest.mark.parametrize(
    ("version", "sources", "expected", "made"),
    [
        ("1.5.1", TemplateSources(minor=MINOR, previous_minor=PREVIOUS, major=MAJOR), "minor", None),
        ("1.5.0", TemplateSources(minor=MINOR, previous_minor=PREVIOUS, major=MAJOR), "minor", None),
        ("1.5.0", TemplateSources(previous_minor=PREVIOUS, major=MAJOR), "previous", "template/v1/v1.5"),
        ("1.5.0-beta.1", TemplateSources(previous_minor=PREVIOUS, major=MAJOR), "previous", "template/v1/v1.5"),
        ("1.5.1", TemplateSources(previous_minor=PREVIOUS, major=MAJOR), "major", None),
        ("1.5.0", TemplateSources(major=MAJOR), "major", None),
        ("1.5.0", TemplateSources(), "base", None),
    ],
)
def test_order(version: str, sources: TemplateSources, expected: str, made: str | None) -> None:
    plan = choose(version, sources)
    assert plan.files["Dockerfile"].data.decode() == expected
    assert plan.directory == made
    assert bool(plan.tree) == (made is not None)
    assert bool(plan.notes) == (expected in {"previous", "base"})


def test_base_gives_dockerfile_and_dirs_only() -> None:
    assert list(choose("1.5.0", TemplateSources()).files) == ["Dockerfile", "dirs/a"]


def test_nothing_at_all_is_a_note() -> None:
    plan = choose("1.5.0", TemplateSources(), Tree())
    assert not plan.files
    assert "no Dockerfile" in plan.notes[0]


def test_templates_are_rendered_and_the_copy_is_not() -> None:
    """A new minor line gets the template itself; the release gets what it says. What belongs to the line stays there."""
    raw = Tree(
        {
            "Dockerfile.j2": File(b"LABEL v={{ version }}\n", 0o755),
            "Dockerfile.base": File(b"base"),
            "dirs/x": File(b"{{ not }} a template"),
        }
    )
    plan = choose("1.5.0", TemplateSources(previous_minor=raw))
    assert plan.tree == raw
    assert plan.files == Tree({"Dockerfile": File(b"LABEL v=1.5.0\n", 0o755), "dirs/x": File(b"{{ not }} a template")})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Dockerfile.j2": "a\n{{ nope }}"}, "template/v1/v1.5/Dockerfile.j2:2: 'nope' is undefined"),
        ({"Dockerfile.j2": "{% if %}"}, "template/v1/v1.5/Dockerfile.j2:1: "),
        ({"Dockerfile.j2": "a", "Dockerfile": "b"}, "template/v1/v1.5: Dockerfile and Dockerfile.j2 are both there"),
    ],
)
def test_refused(files: dict[str, str], message: str) -> None:
    minor = Tree({name: File.text(text) for name, text in files.items()})
    with pytest.raises(ConfigError) as caught:
        choose("1.5.0", TemplateSources(minor=minor))
    assert caught.value.message.startswith(message)


def test_a_template_knows_exactly_what_the_reference_lists() -> None:
    names = "".join(f"{name}={{{{ {name} }}}}\n" for name in CONTEXT)
    plan = choose("1.5.0-beta.1", TemplateSources(minor=tree(Dockerfile__j2=names)))
    assert plan.files["Dockerfile"].data.decode().splitlines() == [
        "version=1.5.0-beta.1",
        "major=1",
        "minor=5",
        "patch=0",
        "pre_release=beta.1",
        "base_version=1.4.3",
        "types=['cpu', 'gpu']",
        "platforms={'cpu': ['linux-64'], 'gpu': ['linux-64']}",
        "packages={'cpu': {'scikit-learn': 1.7.1}}".replace("1.7.1", repr(SKLEARN)),
        "name=small",
        "title=small",
        "image=localhost/small",
        "prefix=/opt/conda",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{{ packages.cpu["scikit-learn"].version }}', "1.7.1"),
        ("{% for name in packages.cpu %}{{ name }}{% endfor %}", "scikit-learn"),
        ('{{ packages.cpu["scikit-learn"].file_name }}', "scikit-learn-1.7.1-py_0.conda"),
    ],
)
def test_packages_of_the_base_lock(text: str, expected: str) -> None:
    plan = choose("1.5.0", TemplateSources(minor=tree(Dockerfile__j2=text)))
    assert plan.files["Dockerfile"].data.decode() == expected


@pytest.mark.parametrize(
    "text", ["{{ packages.cpu.nope.version }}", "{{ packages.tpu }}", "{{ packages.cpu.__class__ }}"]
)
def test_a_package_that_is_not_there_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^template/v1/v1\.5/Dockerfile\.j2:2: "):
        choose("1.5.0", TemplateSources(minor=tree(Dockerfile__j2=f"FROM x\n{text}")))


def test_a_directory_of_the_lines_own_files_is_no_template() -> None:
    """A `Dockerfile.base` alone leaves the choice to what comes next, and still goes along to the next minor line."""
    own = tree(Dockerfile__base="FROM debian", bases__json="{}")
    assert choose("1.5.1", TemplateSources(minor=own, major=MAJOR)).source == "template/v1"
    plan = choose("1.5.0", TemplateSources(previous_minor=own, major=MAJOR))
    assert (plan.source, plan.directory, plan.tree) == ("template/v1", "template/v1/v1.5", own)
    assert choose("1.5.0", TemplateSources(minor=own, previous_minor=PREVIOUS, major=MAJOR)).directory is None


def test_the_source_of_the_last_fallback_is_the_base_release() -> None:
    assert choose("1.5.0", TemplateSources()).source == "build_artifacts/v1/v1.4/v1.4.3"
