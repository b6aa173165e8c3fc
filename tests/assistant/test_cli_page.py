"""`mcqa users`, and what `mcqa ui` refuses before anything slow is loaded."""

import io
import socket
from pathlib import Path

import pytest

from assistant import cli
from assistant.users import Users


def mcqa(monkeypatch: pytest.MonkeyPatch, *arguments: object, stdin: str = "") -> int:
    monkeypatch.setattr("sys.argv", ["mcqa", *map(str, arguments)])
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_users_are_added_with_a_password_that_no_argument_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "users.json"
    assert mcqa(monkeypatch, "users", "add", "ann", "--file", file, "--staff", stdin="correct horse\n") == 0
    assert mcqa(monkeypatch, "users", "add", "bob", "--file", file, stdin="battery staple\n") == 0
    users = Users(file)
    assert users.check("ann", "correct horse")
    assert users.is_staff("ann")
    assert users.check("bob", "battery staple")
    assert not users.is_staff("bob")


def test_the_page_does_not_start_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mcqa(monkeypatch, "ui", "--no-open", "--auth", tmp_path / "none.json") == 1
    assert "mcqa users add" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert mcqa(monkeypatch, "ui", "--no-open", "--port", taken.getsockname()[1]) == 1
    assert "choose another --port" in capsys.readouterr().err
