"""Calibration: weights that are recovered, evidence that is dropped where it is noise, and the real model on real questions."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from assistant.answer import Assistant
from assistant.calibrate import calibrate, fit
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.quiz import make_quiz
from ingest.course import Course
from ingest.errors import UserError

CORPUS = Path(__file__).resolve().parents[2] / "corpus"


def test_weights_are_recovered() -> None:
    rng = np.random.default_rng(0)
    true = np.array([1.5, -0.5, 0.0])
    features = [rng.standard_normal((int(rng.integers(2, 6)), 3)) * [1, 5, 20] for _ in range(4000)]
    keys = []
    for rows in features:
        powers = np.exp(rows @ true)
        keys.append(rng.choice(len(rows), p=powers / powers.sum()))
    assert fit(features, np.array(keys)) == pytest.approx(true, abs=0.15)


def test_features_that_settle_every_question_do_not_run_away() -> None:
    features = [np.array([[1.0], [0.0]])] * 50
    (weight,) = fit(features, np.zeros(50, dtype=np.int64))
    assert 1 < weight < 100


def test_the_real_model_gets_a_card_that_lowers_its_log_loss(lm: LanguageModel) -> None:
    mcqs = [
        row.mcq
        for course in ("machine-learning", "classical-mechanics")
        for row in read_mcqs(CORPUS / course / "questions.jsonl")
    ]
    assistant = Assistant(lm, scoring="letter")
    found = calibrate(assistant, [mcq for mcq in mcqs if mcq])
    assert found.n == 50
    assert found.log_loss[1] < found.log_loss[0]  # the untuned model is sure of letters while it guesses
    assert found.card.scoring == "letter"
    assert found.card.temperature > 1
    assert np.exp(found.card.letter_priors[4]).sum() == pytest.approx(1)
    assert json.loads(found.card.model_dump_json())["letter_priors"]["4"] == list(found.card.letter_priors[4])


def test_evidence_of_a_course_is_weighed_where_it_helps(lm: LanguageModel, operating_systems: Course) -> None:
    pages = {record.path: operating_systems.pages(record.path) for record in operating_systems.documents()}
    mcqs = [item.mcq for item in make_quiz(pages, limit=40)]
    assistant = Assistant(dataclasses.replace(lm, card=lm.card.model_copy(update={"evidence_weights": {}})), operating_systems)
    found = calibrate(assistant, mcqs)
    assert found.n == len(mcqs) >= 30
    assert found.card.evidence_weights  # nearly every term stands beside its definition on a page
    assert found.log_loss[1] < found.log_loss[0]
    answers = Assistant(dataclasses.replace(lm, card=found.card), operating_systems).answer_many(mcqs)
    losses = [-np.log(answer.probabilities[answer.mcq.answer_index]) for answer in answers]
    assert np.mean(losses) < found.log_loss[1]  # which is of questions held out


def test_too_few_keys_are_refused(lm: LanguageModel) -> None:
    mcqs = [row.mcq for row in read_mcqs(CORPUS / "machine-learning" / "questions.jsonl") if row.mcq]
    with pytest.raises(UserError, match="25 questions with keys are too few"):
        calibrate(Assistant(lm), mcqs)


def test_questions_that_exceed_the_window_do_not_count(lm: LanguageModel) -> None:
    # 40 questions, all but ten of them far too long to be read
    mcqs = [MCQ(question="word " * (10 if n < 10 else 9_000), options=("yes", "no"), answer="A") for n in range(40)]
    with pytest.raises(UserError, match=r"10 of 40 questions with keys fit into the \d+ tokens"):
        calibrate(Assistant(lm), mcqs)
