"""The pinned wheels: well formed, and moving between editions as the demo tells."""

import re
from collections import defaultdict

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from demochannel.editions import EDITIONS
from demochannel.pins import Pin, load_pins, one_version_each, requirement

PINS = load_pins()


def by_edition() -> dict[str, dict[str, Pin]]:
    current: dict[str, Pin] = {}
    found = {}
    for edition in EDITIONS:
        current = current | {pin.name: pin for pin in PINS if pin.edition == edition}
        found[edition] = current
    return found


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: f"{pin.edition}-{pin.filename}")
def test_pin_is_consistent(pin: Pin) -> None:
    name, version, _, tags = parse_wheel_filename(pin.filename)
    assert (name, version) == (canonicalize_name(pin.name), Version(pin.version))
    assert re.fullmatch("[0-9a-f]{64}", pin.sha256)
    assert any(tag.interpreter in {"cp311", "py3"} for tag in tags)
    assert pin.edition in EDITIONS


def test_one_hash_per_file() -> None:
    hashes = defaultdict(set)
    for pin in PINS:
        hashes[pin.filename].add(pin.sha256)
    assert all(len(each) == 1 for each in hashes.values())


@pytest.mark.parametrize(
    ("old", "new", "moves", "within_patch"), [("2026-01", "2026-02", 8, 6), ("2026-02", "2026-03", 6, 2)]
)
def test_packages_move_between_editions(old: str, new: str, moves: int, within_patch: int) -> None:
    before, after = by_edition()[old], by_edition()[new]
    assert before.keys() <= after.keys()
    versions = {name: (Version(before[name].version), Version(after[name].version)) for name in before}
    moved = {name for name, (was, now) in versions.items() if was != now}
    assert all(now >= was for was, now in versions.values())
    assert len(moved) >= moves
    patches = {name for name in moved if versions[name][0].release[:2] == versions[name][1].release[:2]}
    assert len(patches) >= within_patch
    rebuilt = {name for name in before if name not in moved and before[name].build_number < after[name].build_number}
    assert rebuilt


def test_batches_hold_a_project_once_and_every_pin() -> None:
    unique = list({pin.filename: pin for pin in PINS}.values())
    batches = one_version_each(unique)
    assert sorted(pin.filename for batch in batches for pin in batch) == sorted(pin.filename for pin in unique)
    for batch in batches:
        assert len({pin.name for pin in batch}) == len(batch)


def test_batches_are_never_too_few() -> None:
    pins = [Pin("e", "same", str(number), f"{number}", "0", "MIT") for number in range(7)]
    assert len(one_version_each(pins)) == 7


def test_requirement_pins_the_hash() -> None:
    pin = Pin("2026-01", "six", "1.17.0", "six.whl", "ab" * 32, "MIT")
    assert requirement(pin) == f"six==1.17.0 --hash=sha256:{'ab' * 32}\n"
