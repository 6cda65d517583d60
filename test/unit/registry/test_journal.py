"""The journal survives a kill at any byte."""

from pathlib import Path

import pytest

from lockyard.errors import ConfigError
from lockyard.ports.registry import UploadSession
from lockyard.registry.journal import open_journal


def test_sessions_and_finished_blobs_come_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / "push.jsonl"
    with open_journal(path) as journal:
        journal.note_session("repo", "one", UploadSession("/u/1", 5))
        journal.note_session("repo", "two", UploadSession("/u/2", 5))
        journal.note_session("repo", "two", UploadSession("/u/3", 9))
        journal.note_done("repo", "one")
    assert path.stat().st_mode & 0o777 == 0o600  # upload addresses may carry signatures
    with open_journal(path) as journal:
        assert journal.session("repo", "one") is None
        assert journal.session("repo", "two") == UploadSession("/u/3", None)
        assert journal.session("other", "two") is None
        assert journal.finished == {("repo", "one")}


def test_a_kill_at_any_byte_costs_the_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    with open_journal(path) as journal:
        journal.note_done("repo", "one")
        journal.note_done("repo", "two")
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        with open_journal(path) as journal:
            whole = data[:size].count(b"\n") - 1
            assert len(journal.finished) == max(0, whole)
            journal.note_done("repo", "three")
        with open_journal(path) as journal:
            assert ("repo", "three") in journal.finished


def test_noise_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    path.write_bytes(b'{"schema": 1}\n\xff\xfe\n[1]\n{"event": "done", "repository": "repo", "digest": "one"}\n')
    with open_journal(path) as journal:
        assert journal.finished == {("repo", "one")}


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    path.write_text('{"schema": 2}\n')
    with pytest.raises(ConfigError, match="newer"), open_journal(path):
        pass


def test_a_complete_push_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "push.jsonl"
    with open_journal(path) as journal:
        journal.remove()
    assert not path.exists()
