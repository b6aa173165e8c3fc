"""Letters without favorites: a model that prefers "A" whatever stands there is asked again with the options in other places.

Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors", ICLR 2024, arXiv 2309.03882.
"""

from collections.abc import Sequence

import numpy as np

from assistant.mcq import MCQ


def rotated(mcq: MCQ, shift: int) -> MCQ:
    """Return the question with its options moved `shift` places on in the alphabet, the last ones to the front; no key."""
    n = len(mcq.options)
    return MCQ(mcq.question, tuple(mcq.options[(place - shift) % n] for place in range(n)), None, mcq.id, mcq.subject)


def unrotated(values: Sequence[float], shift: int) -> list[float]:
    """Return the values of the options of `rotated(mcq, shift)` in the order of `mcq`'s."""
    n = len(values)
    return [values[(option + shift) % n] for option in range(n)]


def shifts(options: int, count: int) -> list[int]:
    """Return `count` rotations of that many options, or all, spread evenly; the given order is among them."""
    count = max(1, min(options, count))
    return [place * options // count for place in range(count)]


def averaged(rotations: Sequence[tuple[int, Sequence[float]]]) -> tuple[float, ...]:
    """Return the mean of the probabilities that the options got under several rotations, given as (shift, probabilities)."""
    return tuple(np.mean([unrotated(probabilities, shift) for shift, probabilities in rotations], axis=0).tolist())


def letter_priors(questions: Sequence[Sequence[Sequence[float]]]) -> tuple[float, ...]:
    """Estimate how much a model prefers each letter, from questions seen under all rotations; returns log-priors.

    `questions` holds, for each question, the log-probabilities of the letters under each rotation, shape (n, n). Over all
    rotations every option stands once at every letter, so what remains of their mean is the letters' own (equation 6).
    """
    means = []
    for rotations in questions:
        mean = np.mean(np.asarray(rotations, dtype=np.float64), axis=0)
        means.append(np.exp(mean - mean.max()) / np.exp(mean - mean.max()).sum())
    prior = np.mean(means, axis=0)
    # Rounded, so that a run that goes on later finds the same.
    return tuple(np.log(prior / prior.sum()).round(6).tolist())
