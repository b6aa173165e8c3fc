"""Corrections on disk, whoever writes at the same time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from assistant.feedback import feedback_file, record
from ingest.errors import UserError


def test_writers_in_several_processes_lose_and_mix_nothing(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "feedback.jsonl"
    code = (
        "import sys; from pathlib import Path; from assistant.feedback import record\n"
        "for n in range(40): record({'who': sys.argv[1], 'n': n, 'text': 'x' * 9000}, Path(sys.argv[2]))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(who), str(file)]) for who in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert sorted((row["who"], row["n"]) for row in rows) == sorted((str(who), n) for who in range(3) for n in range(40))


def test_odd_characters_stay_one_line(home: Path) -> None:
    record({"text": "a\nb\u2028c \udcff"})
    (line,) = feedback_file().read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(line)["text"].startswith("a\nb\u2028c")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot"):
        record({}, tmp_path / "file" / "feedback.jsonl")
