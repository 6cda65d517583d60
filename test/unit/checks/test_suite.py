"""What is in a suite, what `tests.toml` says of it, and what runs where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.checks.plan import Runs, Skipped
from lockyard.checks.suite import READY_MADE, ImageTest, TestSettings, plan_test, read_suite, with_ready_made
from lockyard.errors import ConfigError, LockyardError
from lockyard.tree import File, Tree

SOURCE = "test/image"


def suite(config: str = "", *paths: str) -> Tree:
    return Tree({path: File(b"") for path in paths} | {"tests.toml": File(config.encode())})


def test_files_become_tests_by_their_names() -> None:
    found = read_suite(
        suite("", "b.test.sh", "deep/a.test.py", "c.test.Dockerfile", "test_x.py", "helper.py", "data.txt"),
        source=SOURCE,
    )
    assert [(test.name, test.kind, test.path) for test in found.tests] == [
        ("a", "python", "deep/a.test.py"),
        ("b", "shell", "b.test.sh"),
        ("c", "dockerfile", "c.test.Dockerfile"),
    ]
    assert found.pytest
    assert not read_suite(suite("", "helper.py"), source=SOURCE)


def test_settings_are_read() -> None:
    text = """
[tests.a]
packages = ["numpy", "pandas"]
types = ["gpu"]
timeout = 30
gpu = true
shm-size = "1 GiB"
wait-for = { line = "ready", within = 5 }
"""
    settings = read_suite(suite(text, "a.test.sh"), source=SOURCE).tests[0].settings
    assert settings.packages == ("numpy", "pandas")
    assert settings.shm_size == 1 << 30
    assert settings.wait_for is not None
    assert (settings.wait_for.line, settings.wait_for.within) == ("ready", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[tests.a]\npackage = []\n",
            r"test/image/tests.toml:2: unknown key 'tests.a.package'; did you mean 'packages'",
        ),
        ("[tests.b]\n", r"tests.toml: there is no test 'b'"),
        ("[tests.aa]\n", r"there is no test 'aa'; did you mean 'a'"),
        ("[tests.a]\ntimeout = 0\n", r"tests.toml:2: tests.a.timeout"),
        ('[tests.a]\ncontext = "../x"\n', r"tests.toml:2: tests.a.context"),
        ('[tests.a]\nwait-for = { line = "(" }\n', r"not a regular expression"),
        ('[tests.a]\nimage-argument = "A B"\n', r"tests.a.image-argument"),
        ('[tests.a]\nshm-size = "much"\n', r"tests.a.shm-size"),
        ('[ready-made]\nrun = ["import"]\n', r"no ready-made test 'import'; did you mean 'imports'"),
        ("schema = 2\n", r"tests.toml:1: schema"),
        ("x", r"tests.toml"),
    ],
)
def test_wrong_settings_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_suite(suite(text, "a.test.sh"), source=SOURCE)


def test_one_name_is_one_test() -> None:
    with pytest.raises(ConfigError, match="both the test 'a'"):
        read_suite(suite("", "a.test.sh", "deep/a.test.py"), source=SOURCE)


def test_ready_made_tests_join_the_suite_that_asks() -> None:
    shipped = Tree({f"{name}.test.py": File(name.encode()) for name in READY_MADE})
    assert with_ready_made(suite("", "a.test.sh"), shipped, source=SOURCE) == suite("", "a.test.sh")
    text = '[ready-made]\nrun = ["size", "imports"]\nmax-size = "2.5 GB"\n'
    tree = with_ready_made(suite(text, "a.test.sh"), shipped, source=SOURCE)
    found = read_suite(tree, source=SOURCE)
    assert [test.name for test in found.tests] == ["a", "ready-made/imports", "ready-made/size"]
    assert found.ready_made.max_size == 2_500_000_000
    whole = with_ready_made(suite('[ready-made]\nrun = ["all"]\n'), shipped, source=SOURCE)
    assert len(read_suite(whole, source=SOURCE).tests) == len(READY_MADE)


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ({}, "shell", None),
        ({"types": ("gpu",)}, "shell", "for gpu images"),
        ({"types": ("gpu", "cpu")}, "shell", None),
        ({"packages": ("numpy",)}, "shell", None),
        ({"packages": ("numpy", "torch", "jax")}, "shell", "the lock has no jax, torch"),
        ({"gpu": True}, "shell", "no GPU here"),
        ({}, "dockerfile", "no engine here"),
    ],
)
def test_what_runs_where(settings: dict[str, object], kind: str, reason: str | None) -> None:
    test = ImageTest("a", kind, "a", TestSettings.model_validate(settings))  # type: ignore[arg-type]  # parametrized
    plan = plan_test(test, image_type="cpu", packages=("numpy",), gpu="no GPU here", containers="no engine here")
    assert plan == (Runs() if reason is None else Skipped(reason))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_message(data: bytes) -> None:
    messages = []
    try:
        read_suite(Tree({"tests.toml": File(data), "a.test.sh": File(b"")}), source=SOURCE)
    except LockyardError as error:
        messages.append(error.message)
    assert not any("\n" in message for message in messages)
