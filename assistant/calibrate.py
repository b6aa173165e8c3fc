"""Keyed questions → a card by which 70 % means 70 %: temperature, weights of the retrieval's evidence, letter priors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assistant.answer import TOGETHER, Answer, Assistant, Parts
from assistant.card import EVIDENCE, Card
from assistant.evidence import columns
from assistant.mcq import MCQ
from assistant.stats import expected_calibration_error
from ingest.errors import UserError

_FEWEST = 30  # questions; from fewer, a temperature is hardly more than a guess
_FOLDS = 5
_PRIOR_SAMPLE = 40  # questions whose options are seen in every place; the priors settle within some dozens
_HOTTEST = 100.0  # where the model's scores tell nothing


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibrating came to: the new card, and figures before and after, of questions held out in turn (5 folds).

    `log_loss` is in nats a question, `error` the expected calibration error; pairs are (before, after).
    """

    card: Card
    n: int
    right: tuple[int, int]
    log_loss: tuple[float, float]
    error: tuple[float, float]


def calibrate(
    assistant: Assistant, mcqs: Sequence[MCQ], on_progress: Callable[[int, int], None] = lambda *_: None
) -> Calibration:
    """Learn a card for the assistant's model and scoring from questions with keys.

    The model's scores and, with a course, the evidence of retrieval are features of a conditional logit. Evidence is kept only
    if it lowers the log loss of questions that were held out. Under letter scoring the letters' priors are estimated first.
    Questions that exceed the model's window do not count. Raises UserError on too few questions with keys.
    """
    keyed = [mcq for mcq in mcqs if mcq.answer is not None]
    if len(keyed) < _FEWEST:
        raise UserError(f"{len(keyed)} questions with keys are too few to calibrate on; give at least {_FEWEST}")
    card = assistant.lm.card.model_copy(update={"scoring": assistant.scoring, "passages": assistant.passages})
    if assistant.scoring == "letter":
        assistant.learn_priors(keyed[:: max(1, len(keyed) // _PRIOR_SAMPLE)])
        card = card.model_copy(update={"letter_priors": assistant.priors})
    answers: list[Answer] = []
    for start in range(0, len(keyed), TOGETHER):
        block = keyed[start : start + TOGETHER]
        answers += [answer for answer in assistant.answer_many(block, evidence=True) if isinstance(answer, Answer)]
        on_progress(min(len(keyed), start + TOGETHER), len(keyed))
    if len(answers) < _FEWEST:
        lm = assistant.lm
        raise UserError(
            f"{len(answers)} of {len(keyed)} questions with keys fit into the {lm.window} tokens that {lm.name} reads; "
            f"calibrating takes at least {_FEWEST}: give shorter questions, or another --model"
        )
    # The parts are scores over the temperature they were asked with: back to plain scores.
    parts = [replace(a.parts, model=tuple(s * assistant.temperature for s in a.parts.model)) for a in answers]
    keys = np.array([answer.mcq.answer_index for answer in answers], dtype=np.int64)
    by_way = {way: [features(one, way) for one in parts] for way in ([False, True] if assistant.course else [False])}
    judged = {way: _held_out(rows, keys) for way, rows in by_way.items()}
    best = min(judged, key=lambda way: _log_loss(judged[way], keys))
    weights = fit(by_way[best], keys)
    card = card.model_copy(update=learnt(weights))
    before, after = [np.asarray(answer.probabilities) for answer in answers], judged[best]
    return Calibration(
        card, len(keys),
        right=(_right(before, keys), _right(after, keys)),
        log_loss=(_log_loss(before, keys), _log_loss(after, keys)),
        error=(_error(before, keys), _error(after, keys)),
    )  # fmt: skip


def features(parts: Parts, evidence: bool = True) -> np.ndarray:
    """Return what an option's score is made of, shape (options, features): first the model's own score, then the evidence."""
    return np.column_stack(columns(parts.model, parts.evidence) if evidence else [parts.model])


def learnt(weights: np.ndarray) -> dict[str, Any]:
    """Return the temperature and the evidence's weights, as a card names them, that `fit` found for `features`."""
    own = max(float(weights[0]), 1 / _HOTTEST)  # a little even where the model tells nothing
    of_evidence = {kind: round(float(weight), 4) for kind, weight in zip(EVIDENCE, weights[1:], strict=False)}
    return {"temperature": round(1 / own, 4), "evidence_weights": of_evidence}


def fit(features: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Fit a conditional logit by Newton's method: P(option) ∝ exp(its features · weights).

    `features` holds one array a question, shape (options, features); `keys` the right option of each. Returns the weights. A
    trace of ridge keeps what the data cannot tell at zero.
    """
    width = features[0].shape[1]
    scale = np.concatenate([rows - rows.mean(axis=0) for rows in features]).std(axis=0) + 1e-9
    weights = np.zeros(width)
    for _ in range(50):
        gradient, curvature = -1e-2 * weights, 1e-2 * np.eye(width)
        for rows, key in zip(features, keys, strict=True):
            inputs = rows / scale
            share = _softmax(inputs @ weights)
            center = share @ inputs
            gradient = gradient + inputs[key] - center
            curvature = curvature + (inputs * share[:, None]).T @ inputs - np.outer(center, center)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step / max(1.0, float(np.abs(step).max()) / 2)  # no further than the curve can be trusted
        if np.abs(step).max() < 1e-8:
            break
    fitted: np.ndarray = weights / scale
    return fitted


def _held_out(features: Sequence[np.ndarray], keys: np.ndarray) -> list[np.ndarray]:
    """Return probabilities for each question by weights that were fitted without it."""
    folds = np.arange(len(keys)) % _FOLDS
    found: dict[int, np.ndarray] = {}
    for fold in range(_FOLDS):
        others = [int(i) for i in np.flatnonzero(folds != fold)]
        weights = fit([features[i] for i in others], keys[others])
        found.update((i, _softmax(features[i] @ weights)) for i in range(len(keys)) if folds[i] == fold)
    return [found[i] for i in range(len(keys))]


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    shares: np.ndarray = powers / powers.sum()
    return shares


def _right(probabilities: Sequence[np.ndarray], keys: np.ndarray) -> int:
    return sum(int(row.argmax()) == key for row, key in zip(probabilities, keys, strict=True))


def _log_loss(probabilities: Sequence[np.ndarray], keys: np.ndarray) -> float:
    return float(-np.mean([np.log(max(float(row[key]), 1e-12)) for row, key in zip(probabilities, keys, strict=True)]))


def _error(probabilities: Sequence[np.ndarray], keys: np.ndarray) -> float:
    confidences = [float(row.max()) for row in probabilities]
    correct = [int(row.argmax()) == key for row, key in zip(probabilities, keys, strict=True)]
    return expected_calibration_error(confidences, correct)[0]
