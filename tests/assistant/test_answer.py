"""The real chain: real PDFs, a real index, the real model → a letter."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from assistant.answer import Answer, Assistant
from assistant.card import EVIDENCE, ScoringKind
from assistant.debias import rotated, unrotated
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.prompt import render
from assistant.scoring import score
from ingest.course import Course
from ingest.errors import ModelError

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
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


OTHERS = [
    QUESTION,
    MCQ("Where is the length of a file kept?", ("In its inode", "In its directory"), "A"),
    MCQ("What does a scheduler choose?", ("The next process to run", "A page", "A file", "A lock", "A disk"), "A"),
]


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_questions_answered_together_are_answered_as_alone(
    lm: LanguageModel, operating_systems: Course, scoring: ScoringKind
) -> None:
    assistant = Assistant(lm, operating_systems, scoring=scoring)
    for together, mcq in zip(assistant.answer_many(OTHERS), OTHERS, strict=True):
        alone = assistant.answer(mcq)
        assert isinstance(together, Answer)
        assert together.sources == alone.sources
        assert together.probabilities == pytest.approx(alone.probabilities, abs=0.03)  # rounding of 16-bit numbers


def test_one_question_that_is_too_long_costs_no_other(lm: LanguageModel) -> None:
    long = MCQ("word " * (lm.window + 1), ("yes", "no"))
    first, second, third = Assistant(lm).answer_many([QUESTION, long, QUESTION])
    assert isinstance(second, ModelError)
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert first.probabilities == pytest.approx(third.probabilities, abs=0.03)


def test_what_the_course_does_not_hold_is_answered_without_it_and_said(lm: LanguageModel, operating_systems: Course) -> None:
    foreign = MCQ(
        "Which vitamin do lemons supply to sailors with scurvy?", ("Vitamin A", "Vitamin C", "Vitamin D", "Vitamin K")
    )
    answer = Assistant(lm, operating_systems).answer(foreign)
    assert answer.sources == ()
    assert any("seems to hold nothing about this" in warning for warning in answer.warnings)
    assert answer.probabilities == pytest.approx(Assistant(lm).answer(foreign).probabilities, abs=0.03)


def test_permutations_leave_no_say_to_the_order(lm: LanguageModel) -> None:
    assistant = Assistant(lm, scoring="letter", permute=4)
    one = assistant.answer(QUESTION)
    turned = assistant.answer(rotated(QUESTION, 1))
    assert unrotated(turned.probabilities, 1) == pytest.approx(one.probabilities, abs=0.03)
    alone = Assistant(lm, scoring="letter")
    single = unrotated(alone.answer(rotated(QUESTION, 1)).probabilities, 1)
    assert max(abs(a - b) for a, b in zip(single, alone.answer(QUESTION).probabilities, strict=True)) > 0.05


def test_evidence_counts_by_the_weight_that_the_card_gives_it(lm: LanguageModel, operating_systems: Course) -> None:
    card = lm.card.model_copy(update={"evidence_weights": {"sentence": 10.0}})
    assistant = Assistant(dataclasses.replace(lm, card=card), operating_systems)
    heavy = assistant.answer(QUESTION)
    evidence = heavy.parts.evidence
    assert {kind: len(values) for kind, values in evidence.items()} == dict.fromkeys(EVIDENCE, 4)
    assert heavy.letter == "ABCD"[evidence["sentence"].index(max(evidence["sentence"]))]
    assert sum(heavy.probabilities) == pytest.approx(1)
    light = Assistant(without_evidence(lm), operating_systems).answer(QUESTION)
    assert light.parts.evidence == {}
    assert heavy.parts.model == pytest.approx(light.parts.model, abs=0.05)
    assert heavy.to_json()["evidence"]["sentence"] == [round(value, 5) for value in evidence["sentence"]]
    negated = assistant.answer(dataclasses.replace(QUESTION, question=QUESTION.question.replace("says", "does not say")))
    assert negated.parts.evidence["sentence"] == pytest.approx([-value for value in evidence["sentence"]], rel=0.1)
    # Two options have the lowest: there the model decides.
    assert evidence["sentence"]["ABCD".index(negated.letter)] == min(evidence["sentence"])


def without_evidence(lm: LanguageModel) -> LanguageModel:
    return dataclasses.replace(lm, card=lm.card.model_copy(update={"evidence_weights": {}}))


def test_an_explanation_says_what_each_passage_did(lm: LanguageModel, operating_systems: Course) -> None:
    lm = without_evidence(lm)
    assistant = Assistant(lm, operating_systems)
    answer = assistant.answer(QUESTION)
    influences = assistant.explain(answer)
    assert [influence.hit for influence in influences] == list(answer.sources)
    chosen = answer.mcq.letters.index(answer.letter)
    scores = score(
        lm, [render(QUESTION, [hit.passage.text for hit in answer.sources[1:]], "cloze")], "cloze", lm.card.normalization
    )
    without = scores[0].probabilities(lm.card.temperature)[chosen]
    assert influences[0].drop == pytest.approx(answer.probabilities[chosen] - without, abs=0.03)
    for influence in influences:
        assert influence.sentence in influence.hit.passage.text
        assert (influence.sentence_drop > 0) == bool(influence.sentence)


def test_learnt_priors_even_out_the_letters(lm: LanguageModel) -> None:
    rows = read_mcqs(CORPUS / "machine-learning" / "questions.jsonl")
    mcqs = [row.mcq for row in rows if row.mcq and len(row.mcq.options) == 4]
    assistant = Assistant(lm, scoring="letter")

    def spread() -> float:
        shares = np.mean([answer.probabilities for answer in assistant.answer_many(mcqs) if isinstance(answer, Answer)], axis=0)
        return float(np.std(shares))

    before = spread()
    assistant.learn_priors(mcqs[::3])
    assert set(assistant.priors) == {4}
    assert spread() < before / 2
    assert Assistant(lm, scoring="cloze").priors == {}
