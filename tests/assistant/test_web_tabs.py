"""The tabs Practise, Batch and Models, their callbacks without a browser."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from assistant import web_batch, web_models, web_practise
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.web_practise import Item, Practice
from assistant.web_service import Service
from ingest.course import Course
from ingest.errors import CourseError, UserError

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
MCQS = [MCQ(f"What is {n} + {n}?", (str(2 * n), str(3 * n + 1)), "A") for n in range(1, 6)]


@pytest.fixture
def service(lm: LanguageModel) -> Service:
    return Service(lambda _: lm)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five questions with keys, one without, and two bad rows."""
    rows: list[dict[str, Any]] = [
        {"question": mcq.question, "choices": list(mcq.options), "answer": mcq.answer, "document": "a.pdf", "page": 2}
        for mcq in MCQS
    ]
    rows += [{"question": HOSTILE, "choices": [HOSTILE, "b"]}, {"question": "none"}]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{half", encoding="utf-8")
    return path


def test_a_round_is_scored_and_says_what_to_read_again(service: Service) -> None:
    items = [Item(MCQS[0], "a.pdf", 2, "text"), Item(MCQS[1], "a.pdf", 2), Item(MCQS[2], "b.pdf", 5), Item(MCQS[3])]
    practice = Practice(items)
    for given in "ABBB":
        assert not practice.checked
        practice.answer = service.answer(practice.item.mcq, None)  # type: ignore[union-attr]
        practice.letters.append(given)
        assert practice.checked
        practice.place += 1
    assert practice.item is None
    assert (practice.right, len(practice.graded)) == (1, 4)
    assert web_practise.read_again(practice) == [("a.pdf", 2, 1), ("b.pdf", 5, 1)]
    assert "1 of 4" in web_practise.result_html(practice)


def test_the_right_letter_and_its_source_are_shown_after_the_students(service: Service) -> None:
    practice = Practice([Item(MCQ(HOSTILE, ("a", HOSTILE), "A"), "<b>.pdf", 3, HOSTILE)])
    practice.answer = service.answer(practice.items[0].mcq, None)
    assert web_practise.verdict_html(practice) == ""  # nothing before the student's letter
    practice.letters.append("B")
    shown = web_practise.verdict_html(practice)
    assert "The right answer is A" in shown
    assert "&lt;b&gt;.pdf, p. 3" in shown
    assert "<script" not in shown + web_practise.question_html(practice)


def test_questions_are_made_of_a_courses_pages_or_read_from_a_file(
    operating_systems: Course, home: Path, folder: Path, file: Path
) -> None:
    Course("os").sync(folder)
    made = web_practise.from_course("os", 5, 1)
    assert len(made) == 5
    assert all(item.document.endswith(".pdf") and item.page and item.evidence for item in made)
    assert made == web_practise.from_course("os", 5, 1)
    with pytest.raises(CourseError, match="no course"):
        web_practise.from_course("nothing", 5, 1)
    items, bad = web_practise.from_file(str(file), 50)
    assert len(items) == 6
    assert (items[0].document, items[0].page) == ("a.pdf", 2)
    assert [one[:5] for one in bad] == ["row 7", "row 8"]
    assert len(web_practise.from_file(str(file), 2)[0]) == 2
    with pytest.raises(UserError, match="choose a question file"):
        web_practise.from_file(None, 5)


def test_a_history_that_a_browser_made_up_does_no_harm() -> None:
    for history in (None, "x", [1, None], {"a": 1}):
        assert web_practise.cleaned(history) == []
    row = {"question": f"=HYPERLINK(1) {HOSTILE}", "yours": "A", "right": "A", "else": "x" * 9000}
    assert len(web_practise.cleaned([row] * 900)) == 500
    assert "<script" not in web_practise.history_html([row])
    assert "1 of 1 right" in web_practise.history_html([row])
    with Path(web_practise.export([row])).open(encoding="utf-8", newline="") as opened:
        (written,) = csv.DictReader(opened)
    assert written["question"].startswith("'=HYPERLINK")


def test_a_file_is_previewed_with_its_bad_rows(file: Path, tmp_path: Path) -> None:
    shown = web_batch.preview_html(str(file))
    assert "questions understood" in shown
    assert "no options found" in shown
    assert "not valid JSON" in shown
    assert "<script" not in shown
    program = tmp_path / "a.jsonl"
    program.write_bytes(b"MZ\0\0")
    with pytest.raises(UserError, match="no text"):
        web_batch.preview_html(str(program))


def test_a_batch_can_be_stopped_goes_on_and_is_filtered(service: Service, home: Path, file: Path) -> None:
    run = web_batch.Run()

    def stop(done: int, total: int) -> None:
        assert total == 8
        if done == 3:
            run.stop.append(True)

    assert web_batch.answer_file(service, run, str(file), None, stop) == 8
    assert len(run.records) == 3
    assert "Stopped after 3 of 8" in web_batch.summary_html(run.records, 8)
    seen: list[int] = []
    assert web_batch.answer_file(service, run, str(file), None, lambda done, _: seen.append(done)) is None
    assert seen[0] == 3  # not from the start
    assert len(run.records) == 8
    assert "95 % interval" in web_batch.summary_html(run.records)
    counts = {which: web_batch.rows_html(run.records, which).count("<tr>") - 1 for which in web_batch.FILTERS}
    assert counts["All"] == 8
    assert counts["Not answered"] == 2
    assert max(counts["Right"], 0) + max(counts["Wrong"], 0) == 5
    assert "<script" not in web_batch.rows_html(run.records, "All")
    lines, table = web_batch.downloads(run)
    assert len(Path(lines).read_text(encoding="utf-8").splitlines()) == 8
    with Path(table).open(encoding="utf-8", newline="") as opened:
        assert [row["line"] for row in csv.DictReader(opened)] == [str(n) for n in range(1, 9)]


def test_the_model_is_shown_with_its_card(lm: LanguageModel, home: Path) -> None:
    shown = web_models.model_html(lm, 0.42)
    assert "0.4 s" in shown
    assert "MB" in shown
    assert "Compares how likely" in shown
    assert lm.name in [name for _, name in web_models.names()]
