import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assistant.answer import Assistant
from assistant.batch import run_batch
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from ingest.errors import UserError


def write_questions(path: Path, count: int = 12, bad: int | None = None) -> Path:
    rows = [
        json.dumps(
            {"id": f"q{n}", "question": f"Which number comes after {n}?", "choices": [str(n + 1), str(n)], "answer": "A"}
        )
        for n in range(count)
    ]
    if bad is not None:
        rows[bad - 1] = "{not json"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def answers(path: Path) -> list[dict[str, object]]:
    """The lines of a result without what differs from run to run."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records:
        record.pop("seconds", None)
    return records


class Interrupting(Assistant):
    """Stops like a user would, after a number of questions."""

    left = 5

    def answer(self, mcq: MCQ):  # type: ignore[no-untyped-def]
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().answer(mcq)


def test_answers_keep_the_order_and_bad_rows_their_place(lm: LanguageModel, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl", bad=7)
    progress: list[tuple[int, int]] = []
    report = run_batch(Assistant(lm), source, tmp_path / "out.jsonl", on_progress=lambda *at: progress.append(at))
    records = answers(tmp_path / "out.jsonl")
    assert [record["line"] for record in records] == list(range(1, 13))
    assert "not valid JSON" in str(records[6]["error"])
    assert report.bad == {7: records[6]["error"]}
    assert report.keyed == 11
    assert report.correct == sum(record.get("letter") == "A" for record in records)
    assert progress[-1] == (12, 12)
    assert not list(tmp_path.glob("*.partial"))


def test_a_stopped_batch_is_continued_to_the_same_result(lm: LanguageModel, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl")
    run_batch(Assistant(lm), source, tmp_path / "whole.jsonl")
    target = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_batch(Interrupting(lm), source, target)
    assert not target.exists()
    partial = tmp_path / "out.jsonl.partial"
    with partial.open("a") as file:
        file.write('{"line": 6, "letter": "A", "proba')  # as a kill in the middle of a write leaves it
    report = run_batch(Assistant(lm), source, target)
    assert (report.resumed, report.rows, report.keyed) == (5, 12, 12)
    assert answers(target) == answers(tmp_path / "whole.jsonl")
    assert not partial.exists()


def test_a_killed_process_is_continued(lm: LanguageModel, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl", count=60)
    target, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    command = [sys.executable, "-c", "from assistant.cli import main; main()", "batch", str(source), "-o", str(target)]
    process = subprocess.Popen([*command, "--no-course"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = run_batch(Assistant(lm), source, target)
    assert report.resumed >= 3
    assert [record["line"] for record in answers(target)] == list(range(1, 61))


def test_what_would_lose_or_mix_answers_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl")
    target = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_batch(Interrupting(lm), source, target)
    with pytest.raises(UserError, match=r"begun with another scoring.*--force"):
        run_batch(Assistant(lm, scoring="letter"), source, target)
    write_questions(source, count=13)
    with pytest.raises(UserError, match="begun with another input"):
        run_batch(Assistant(lm), source, target)
    assert run_batch(Assistant(lm), source, target, force=True).rows == 13
    before = target.read_bytes()
    with pytest.raises(UserError, match="already exists"):
        run_batch(Assistant(lm), source, target)
    with pytest.raises(UserError, match="question file itself"):
        run_batch(Assistant(lm), source, source)
    with pytest.raises(UserError, match=r"name the output file \.jsonl"):
        run_batch(Assistant(lm), source, tmp_path / "out.txt")
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no question"):
        run_batch(Assistant(lm), tmp_path / "none.jsonl", tmp_path / "o.jsonl")
    assert target.read_bytes() == before
