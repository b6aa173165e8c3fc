"""Keyed questions → a card by which 70 % means 70 %: temperature, weights of the retrieval's evidence, letter priors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from assistant.answer import TOGETHER, Answer, Assistant
from assistant.card import Card, Fusion
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

    The model's scores and, with a course, the evidence of retrieval are features of a conditional logit; evidence is kept only
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
    features = [
        np.column_stack([
            np.asarray(answer.parts.model) * assistant.temperature,
            *([answer.parts.lexical, answer.parts.dense] if answer.parts.lexical else []),
        ])
        for answer in answers
    ]  # fmt: skip
    keys = np.array([answer.mcq.letters.index(answer.mcq.answer or "") for answer in answers], dtype=np.int64)
    plain = [rows[:, :1] for rows in features]
    own, with_evidence = _held_out(plain, keys), _held_out(features, keys)
    helps = features[0].shape[1] > 1 and _log_loss(with_evidence, keys) < _log_loss(own, keys)
    weights = fit(features if helps else plain, keys)
    fusion = Fusion(lexical=float(weights[1]), dense=float(weights[2])) if helps else Fusion()
    card = card.model_copy(update={"temperature": 1 / max(float(weights[0]), 1 / _HOTTEST), "fusion": fusion})
    before, after = [np.asarray(answer.probabilities) for answer in answers], with_evidence if helps else own
    return Calibration(
        card, len(keys),
        right=(_right(before, keys), _right(after, keys)),
        log_loss=(_log_loss(before, keys), _log_loss(after, keys)),
        error=(_error(before, keys), _error(after, keys)),
    )  # fmt: skip


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
