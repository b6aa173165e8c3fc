"""The real chain: real PDFs, a real index, the real model → a letter."""

import json
from pathlib import Path

import pytest

from assistant.answer import Assistant
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from ingest.course import Course
from ingest.errors import ModelError

QUESTION = MCQ("Which bit of a page table entry says that a page was modified?", ("present", "writable", "dirty", "user"), "C")


def test_an_answer_has_a_letter_probabilities_and_the_page(lm: LanguageModel, operating_systems: Course) -> None:
    answer = Assistant(lm, operating_systems).answer(QUESTION)
    assert sum(answer.probabilities) == pytest.approx(1)
    assert answer.letter == QUESTION.letters[answer.probabilities.index(max(answer.probabilities))]
    assert len(answer.sources) == lm.card.passages
    assert (answer.sources[0].passage.document, answer.sources[0].passage.page_first) == ("02-memory.pdf", 2)
    assert answer.scoring == "cloze"
    record = json.loads(json.dumps(answer.to_json()))
    assert record["letter"] == answer.letter
    assert list(record["probabilities"]) == list("ABCD")
    assert record["sources"][0]["page_first"] == 2


def test_the_same_question_gets_the_same_answer(lm: LanguageModel, operating_systems: Course) -> None:
    one, other = (Assistant(lm, operating_systems).answer(QUESTION) for _ in range(2))
    assert one.probabilities == other.probabilities
    assert one.sources == other.sources


def test_passages_change_what_the_model_believes(lm: LanguageModel, operating_systems: Course) -> None:
    with_course = Assistant(lm, operating_systems).answer(QUESTION)
    without = Assistant(lm).answer(QUESTION)
    assert without.sources == ()
    assert with_course.probabilities[2] > without.probabilities[2]


def test_letter_scoring_reports_the_mass_on_letters(lm: LanguageModel, operating_systems: Course) -> None:
    answer = Assistant(lm, operating_systems, scoring="letter").answer(QUESTION)
    assert answer.letter_mass is not None
    assert 0 < answer.letter_mass <= 1
    assert sum(answer.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_two_to_ten_options_are_answered(lm: LanguageModel, scoring: str, count: int) -> None:
    mcq = MCQ("Which number is even?", (*(str(2 * i + 1) for i in range(count - 1)), "2"))
    answer = Assistant(lm, scoring=scoring).answer(mcq)  # type: ignore[arg-type]
    assert len(answer.probabilities) == count
    assert answer.letter in mcq.letters


def test_passages_that_do_not_fit_the_window_are_dropped_and_said(
    lm: LanguageModel, operating_systems: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "window", 250)
    assistant = Assistant(lm, operating_systems, passages=6)
    answer = assistant.answer(QUESTION)
    assert 0 < len(answer.sources) < 6
    assert (
        answer.sources
        == tuple(operating_systems.search("\n".join((QUESTION.question, *QUESTION.options)), 6))[: len(answer.sources)]
    )
    assert f"only {len(answer.sources)} of 6 passages" in answer.warnings[0]
    with pytest.raises(ModelError, match="shorten it"):
        assistant.answer(MCQ("word " * 400, ("x", "y")))


@pytest.mark.parametrize("name", ["machine-learning", "operating-systems", "classical-mechanics"])
def test_the_right_page_is_among_the_sources_of_the_sample_questions(home: Path, name: str) -> None:
    """Retrieval is what an answer stands on: most questions must bring up the page that holds the answer."""
    corpus = Path(__file__).resolve().parents[2] / "corpus" / name
    course = Course(name)
    course.sync(corpus)
    found = 0
    records = [json.loads(line) for line in (corpus / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, record in zip(read_mcqs(corpus / "questions.jsonl"), records, strict=True):
        assert row.mcq is not None
        hits = course.search("\n".join((row.mcq.question, *row.mcq.options)), 3)
        found += any(
            hit.passage.document == record["document"] and hit.passage.page_first <= record["page"] <= hit.passage.page_last
            for hit in hits
        )
    assert found >= 0.8 * len(records)
