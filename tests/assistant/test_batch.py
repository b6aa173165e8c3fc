import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fakes
import pytest
from fakes import HashAssistant

from assistant import batch
from assistant.answer import Answer, Assistant
from assistant.batch import run_batch
from assistant.formats import Row, read_mcqs
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from ingest.course import Course
from ingest.errors import ModelError, UserError


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
    """The rows of a result without what differs from run to run."""
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]
    for record in records:
        record.pop("seconds", None)
    return records


def interrupt(done: int, _: int) -> None:
    """Stop like a user would, after five rows."""
    if done == 5:
        raise KeyboardInterrupt


def stop(source: Path, target: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(HashAssistant(), source, target, on_progress=interrupt)  # type: ignore[arg-type]


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
    assert progress == [(done, 12) for done in range(13)]
    assert {path.name for path in tmp_path.iterdir()} == {"q.jsonl", "out.jsonl"}


def test_a_row_that_the_model_cannot_take_is_a_bad_row(tmp_path: Path) -> None:
    class Narrow(HashAssistant):
        def answer(self, mcq: MCQ) -> Answer:
            if mcq.id == "q2":
                raise ModelError("the question is longer than the window")
            return super().answer(mcq)

    report = run_batch(Narrow(), write_questions(tmp_path / "q.jsonl"), tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert report.bad == {3: "the question is longer than the window"}
    assert report.rows == 12


def test_a_stopped_batch_is_continued_to_the_same_result(lm: LanguageModel, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl")
    run_batch(Assistant(lm), source, tmp_path / "whole.jsonl", resume=True)  # nothing to resume: it just starts
    target = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_batch(Assistant(lm), source, target, on_progress=interrupt)
    assert not target.exists()
    partial = tmp_path / "out.jsonl.partial"
    with partial.open("a") as file:
        file.write('{"line": 6, "letter": "A", "proba')  # as a kill in the middle of a write leaves it
    report = run_batch(Assistant(lm), source, target, resume=True)
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
    report = run_batch(Assistant(lm), source, target, resume=True)
    assert report.resumed >= 3
    assert [record["line"] for record in answers(target)] == list(range(1, 61))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_batch_killed_at_random_moments_ends_like_one_that_was_not(suffix: str, tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl", count=400, bad=123)
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    partial = target.with_name(target.name + ".partial")
    process = fakes.process(fakes.batch, [str(source), "-o", str(whole)], 0.002)
    process.join()
    assert process.exitcode == 3  # for the bad row

    draw = random.Random(suffix)
    kept = 0
    stages = set()
    for kill in range(100):
        size = partial.stat().st_size if partial.exists() else 0
        process = fakes.process(fakes.batch, [str(source), "-o", str(target), "--resume"], 0.002)
        while kill % 3 and process.is_alive() and not (partial.exists() and partial.stat().st_size > size):
            time.sleep(0.001)
        process.join(draw.uniform(0, 0.2))  # a third of the kills come while the command still starts
        process.kill()
        process.join()
        if not partial.exists() and target.exists():
            break
        lines = partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
        assert [json.loads(line)["line"] for line in lines] == list(range(1, len(lines) + 1))
        assert len(lines) >= kept  # nothing is lost
        kept = len(lines)
        stages.add(kept)
    assert len(stages) > 4  # the moments were spread over the work
    assert answers(target) == answers(whole)
    assert [int(str(record["line"])) for record in answers(target)] == list(range(1, 401))


def test_a_batch_killed_while_it_ends_is_continued(tmp_path: Path) -> None:
    source, target = write_questions(tmp_path / "q.jsonl"), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    run_batch(HashAssistant(), source, tmp_path / "whole.jsonl")  # type: ignore[arg-type]
    stop(source, target)
    # Killed after the result took its place, and before the partial file was deleted.
    begun = partial.read_bytes()
    run_batch(HashAssistant(), source, target, resume=True)  # type: ignore[arg-type]
    partial.write_bytes(begun.split(b"\n")[0] + b"\n" + target.read_bytes())
    assistant = HashAssistant()
    report = run_batch(assistant, source, target, resume=True)  # type: ignore[arg-type]
    assert (report.resumed, assistant.asked, partial.exists()) == (12, 0, False)
    assert answers(target) == answers(tmp_path / "whole.jsonl")
    # Killed before anything was written, and while the heading was.
    for rest in (b"", begun[:30]):
        partial.write_bytes(rest)
        target.unlink()
        assert run_batch(HashAssistant(), source, target, resume=True).resumed == 0  # type: ignore[arg-type]
        assert answers(target) == answers(tmp_path / "whole.jsonl")
    # The machine lost power: what was not synchronized may be anything.
    target.unlink()
    lines = begun.split(b"\n")
    partial.write_bytes(b"\n".join([*lines[:4], b"\0" * 50, *lines[5:]]))
    assert run_batch(HashAssistant(), source, target, resume=True).resumed == 3  # type: ignore[arg-type]
    assert answers(target) == answers(tmp_path / "whole.jsonl")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    source, target = write_questions(tmp_path / "q.jsonl", count=200), tmp_path / "out.jsonl"
    process = fakes.process(fakes.batch, [str(source), "-o", str(target)], 0.02)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out.jsonl.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for arguments in ({"resume": True}, {"force": True}):
        with pytest.raises(UserError, match="is being written by another run; wait for it"):
            run_batch(HashAssistant(), source, target, **arguments)  # type: ignore[arg-type]
    process.kill()
    process.join()
    assert run_batch(HashAssistant(), source, target, resume=True).rows == 200  # type: ignore[arg-type]
    assert [record["line"] for record in answers(target)] == list(range(1, 201))


def test_what_would_lose_or_mix_answers_is_refused(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl")
    target = tmp_path / "out.jsonl"
    stop(source, target)
    with pytest.raises(UserError, match=r"a run that was stopped; continue that run with --resume, or start over with --force"):
        run_batch(HashAssistant(), source, target)  # type: ignore[arg-type]
    other = HashAssistant()
    other.scoring = "cloze"
    with pytest.raises(UserError, match=r"begun with another scoring; .*--force"):
        run_batch(other, source, target, resume=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="begun with another format"):
        run_batch(HashAssistant(), source, target, resume=True, format="course-2025")  # type: ignore[arg-type]
    write_questions(source, count=13)
    with pytest.raises(UserError, match="begun with another input"):
        run_batch(HashAssistant(), source, target, resume=True)  # type: ignore[arg-type]
    assert run_batch(HashAssistant(), source, target, force=True).rows == 13  # type: ignore[arg-type]
    before = target.read_bytes()
    for resume in (False, True):
        with pytest.raises(UserError, match="already exists"):
            run_batch(HashAssistant(), source, target, resume=resume)  # type: ignore[arg-type]
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "none.jsonl").write_text("\n")
    for questions, output, message in (
        (source, source, "question file itself"),
        (source, tmp_path / "out.txt", r"name the output file \.jsonl or \.csv"),
        (source, tmp_path / "folder.jsonl", "is a folder; name a file in it"),
        (source, tmp_path / "no" / "o.jsonl", "does not exist; create it"),
        (tmp_path / "none.jsonl", tmp_path / "o.jsonl", "holds no question"),
    ):
        with pytest.raises(UserError, match=message):
            run_batch(HashAssistant(), questions, output)  # type: ignore[arg-type]
    assert target.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_questions_that_change_while_they_are_answered_are_refused(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "q.jsonl")

    class Editing(HashAssistant):
        def answer(self, mcq: MCQ) -> Answer:
            if self.asked == 3:
                write_questions(source, bad=9)
            return super().answer(mcq)

    with pytest.raises(UserError, match="was changed while it was answered"):
        run_batch(Editing(), source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert not (tmp_path / "out.jsonl").exists()


def test_only_a_block_of_rows_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "anatomy_test.csv"
    source.write_text("Which?,x,y,z,w,A\n" * 14_042, encoding="utf-8")
    assistant = HashAssistant()
    ahead = []

    def watched(path: Path, layout: str | None = None) -> Iterator[Row]:
        for number, row in enumerate(read_mcqs(path, layout)):
            ahead.append(number - assistant.asked)
            yield row

    monkeypatch.setattr(batch, "read_mcqs", watched)
    report = run_batch(assistant, source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert report.rows == 14_042
    assert max(ahead[14_042:]) <= batch.BLOCK  # the first pass only counts
    assert len(ahead) == 2 * 14_042


def test_a_table_holds_a_row_for_each_question(operating_systems: Course, lm: LanguageModel, tmp_path: Path) -> None:
    source = tmp_path / "q.jsonl"
    questions = [
        {"id": "a", "question": "Which bit says that a page was modified?", "choices": ["dirty", "present"], "answer": "A"},
        {"question": 'Pick,\none "of" three', "choices": ["x", "y", "z"]},
        {"question": "Pick", "choices": ["lonely"]},
    ]
    source.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    run_batch(Assistant(lm, operating_systems), source, tmp_path / "out.csv")
    run_batch(Assistant(lm, operating_systems), source, tmp_path / "out.jsonl")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        first, second, third = csv.DictReader(file)
    one, two, _ = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert list(first) == [
        "line", "id", "question", "letter", "p_A", "p_B", "p_C", "key", "correct", "letter_mass", "sources", "seconds", "error",
    ]  # fmt: skip
    assert (first["line"], first["id"], first["letter"], first["key"]) == ("1", "a", one["letter"], "A")
    assert first["correct"] == str(int(one["letter"] == "A"))
    assert [float(first["p_A"]), float(first["p_B"])] == list(one["probabilities"].values())
    assert first["p_C"] == first["error"] == ""
    assert first["sources"].startswith("02-memory.pdf, p")
    assert len(first["sources"].split("; ")) == len(one["sources"])
    assert second["question"] == questions[1]["question"]
    assert (second["id"], second["key"], second["correct"], second["letter"]) == ("", "", "", two["letter"])
    assert third == dict.fromkeys(first, "") | {
        "line": "3",
        "error": "a question needs 2 to 10 options, this one has only one option",
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_a_spreadsheet_runs_nothing_of_a_table(start: str, tmp_path: Path) -> None:
    formula = start + 'cmd|"/C calc"!A0'
    source = tmp_path / "q.jsonl"
    rows = [
        {"id": formula, "question": "Q?", "choices": ["x", "y"]},
        {"question": f"\u200b{formula}", "choices": ["x", "y"]},
        {"question": formula, "choices": ["x", "y"]},
    ]
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run_batch(HashAssistant(), source, tmp_path / "out.csv")  # type: ignore[arg-type]
    table = answers(tmp_path / "out.csv")
    assert table[0]["id"] == f"'{formula}"
    assert str(table[2]["question"]).lstrip("'") == formula.strip()  # a question is stripped, and loses the blank ones
    cells = [str(cell) for row in table for cell in row.values()]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝")) for cell in cells)


def test_what_is_no_valid_text_does_not_end_a_batch(tmp_path: Path) -> None:
    source = tmp_path / "q.jsonl"
    source.write_bytes(
        b'{"id": "\\ud800", "question": "Q?", "choices": ["x", "y"], "answer": "\\udfff"}\n'
        b'{"id": "\xff", "question": "Q?", "choices": ["x", "y"]}\n'
    )
    for name in ("out.jsonl", "out.csv"):
        report = run_batch(HashAssistant(), source, tmp_path / name)  # type: ignore[arg-type]
        assert (report.rows, list(report.bad)) == (2, [1])
        assert (tmp_path / name).read_text(encoding="utf-8").count("\n") >= 2


def test_a_full_disk_is_said_and_the_batch_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = write_questions(tmp_path / "q.jsonl"), tmp_path / "out.jsonl"

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cannot be written .No space left"):
            run_batch(HashAssistant(), source, target)  # type: ignore[arg-type]
    assert run_batch(HashAssistant(), source, target, resume=True).resumed == 12  # type: ignore[arg-type]
    assert len(answers(target)) == 12
