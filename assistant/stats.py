"""Statistics of right and wrong answers: intervals, paired tests, calibration, recall per letter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

_Z = 1.959964  # of a 95 % interval
_RESAMPLES = 1000


def wilson(successes: int, n: int, z: float = _Z) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (95 % by default), as two numbers from 0 to 1.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927. For n = 0 nothing is
    known: (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    center = p + z * z / (2 * n)
    spread = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def percent_with_interval(successes: int, n: int) -> str:
    """Return an accuracy in words, as in "45.3 % (95 % interval 40.2-50.4 %, n = 369)"."""
    if n == 0:
        return "not known (n = 0)"
    low, high = wilson(successes, n)
    return f"{100 * successes / n:.1f} % (95 % interval {100 * low:.1f}-{100 * high:.1f} %, n = {n})"


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided p of McNemar's exact test: that of b and c heads and tails of a fair coin, or less even ones.

    `b` and `c` count the items that only one and only the other of two variants got right. McNemar, "Note on the sampling
    error of the difference between correlated proportions or percentages", Psychometrika 1947. No such item: 1.
    """
    n = b + c
    ways = tail = 1  # C(n, k) and C(n, 0) + ... + C(n, k), in whole numbers: nothing is rounded before the end
    for k in range(1, min(b, c) + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    p: float = 2 * tail / 2**n
    return min(1.0, p)


def paired_difference(b: int, c: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a gain in accuracy, (b - c) / n, as two numbers from -1 to 1.

    Of `n` items, one variant alone got `b` right and the other alone `c`. Agresti and Min, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 2005: the normal interval after half an item was
    added to each of the four kinds. For n = 0 nothing is known: (-1, 1).
    """
    if n == 0:
        return -1.0, 1.0
    n_added, gain, either = n + 2, b - c, b + c + 1  # half an item in each kind
    spread = _Z * sqrt(either - gain * gain / n_added) / n_added
    return max(-1.0, gain / n_added - spread), min(1.0, gain / n_added + spread)


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers with a confidence from `low` to `high`: how many, how many of them right, and their mean confidence."""

    low: float
    high: float
    n: int
    right: int
    confidence: float


def expected_calibration_error(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10
) -> tuple[float, tuple[Bin, ...]]:
    """Return the mean gap between confidence and accuracy over equally wide bins, weighted by size, and the bins that hold any.

    `confidences` are the probabilities, 0 to 1, of the chosen options. Guo et al., arXiv 1706.04599. No answers: 0.
    """
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    places = _bins(sure, bins)
    found = []
    for place in np.unique(places):
        inside = places == place
        found.append(
            Bin(place / bins, (place + 1) / bins, int(inside.sum()), int(right[inside].sum()), float(sure[inside].mean()))
        )
    return _calibration_error(sure, right, places), tuple(found)


def calibration_error_interval(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> tuple[float, float]:
    """Return a 95 % interval of the expected calibration error; the same every time.

    From the lower to the upper end of the percentile and the basic bootstrap together (Davison and Hinkley, "Bootstrap
    methods and their application", 1997). As few answers look worse calibrated than they are, it begins at 0 unless honest
    probabilities give such an error in at most 5 % of cases (drawn as in Bröcker and Smith, "Increasing the reliability of
    reliability diagrams", Weather and Forecasting 2007).
    """
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    places, n = _bins(sure, bins), len(sure)
    draw = np.random.default_rng(0)
    value = _calibration_error(sure, right, places)
    samples = (draw.integers(n, size=n) for _ in range(_RESAMPLES))
    low, high = _middle([_calibration_error(sure[sample], right[sample], places[sample]) for sample in samples])
    honest = [_calibration_error(sure, (draw.random(n) < sure).astype(np.float64), places) for _ in range(_RESAMPLES)]
    return _around(value, min(low, 2 * value - high), max(high, 2 * value - low), honest)


def _bins(confidences: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum(bins - 1, (confidences * bins).astype(np.int64))


def _calibration_error(confidences: np.ndarray, correct: np.ndarray, places: np.ndarray) -> float:
    if not len(confidences):
        return 0.0
    # A bin's share of the answers times its gap is the sum of (right - confidence) in it, by the number of all answers.
    return float(np.abs(np.bincount(places, correct - confidences)).sum() / len(confidences))


def coverage_curve(confidences: Sequence[float], correct: Sequence[bool]) -> list[tuple[int, int]]:
    """Return, for every threshold of confidence from the highest down, (answers at least so sure, how many of them right).

    Answers that are equally sure enter together, so the curve does not depend on their order. The last pair holds all.
    """
    ranked = sorted(zip(confidences, correct, strict=True), key=lambda pair: -pair[0])
    curve = []
    right = 0
    for index, (confidence, is_right) in enumerate(ranked, start=1):
        right += is_right
        if index == len(ranked) or ranked[index][0] != confidence:
            curve.append((index, right))
    return curve


def at_coverage(curve: Sequence[tuple[int, int]], share: float) -> tuple[int, int]:
    """Return the first point of a coverage curve that holds at least `share` (0 to 1) of the answers."""
    n = curve[-1][0]
    return next(point for point in curve if point[0] >= share * n)


def negative_log_likelihood(of_key: Sequence[float]) -> float:
    """Return the mean of -ln p in nats, p being the probabilities of the right options, taken to be at least 1e-12."""
    return sum(-log(max(p, 1e-12)) for p in of_key) / len(of_key)


def brier_score(probabilities: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """Return the mean squared distance, 0 to 2, of the options' probabilities from 1 for the right one and 0 for the others.

    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
    """
    total = 0.0
    for options, key in zip(probabilities, right, strict=True):
        total += sum((p - (index == key)) ** 2 for index, p in enumerate(options))
    return total / len(right)


def recalls(keys: Sequence[str], letters: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return for each letter that is a key, in order: (how many of its items were answered with it, how many it has)."""
    counts = {letter: [0, 0] for letter in sorted(set(keys))}
    for key, letter in zip(keys, letters, strict=True):
        counts[key][0] += key == letter
        counts[key][1] += 1
    return {letter: (right, n) for letter, (right, n) in counts.items()}


def recall_spread(recall: Mapping[str, tuple[int, int]]) -> float:
    """Return the standard deviation (0 to 0.5) of the recalls over the letters: 0 where no position is favored.

    Zheng et al., "Large language models are not robust multiple choice selectors", arXiv 2309.03882.
    """
    return float(np.std([right / n for right, n in recall.values()]))


def recall_spread_interval(recall: Mapping[str, tuple[int, int]]) -> tuple[float, float]:
    """Return a 95 % interval of `recall_spread`; the same every time.

    Recalls are drawn from their Jeffreys posteriors, Beta(right + 1/2, wrong + 1/2). As recalls of few items differ by chance
    alone, the interval begins at 0 unless right answers dealt out to the letters at random give such a spread in at most 5 %
    of cases.
    """
    right, n = (np.array(counts) for counts in zip(*recall.values(), strict=True))
    draw = np.random.default_rng(0)
    low, high = _middle(draw.beta(right + 0.5, n - right + 0.5, size=(_RESAMPLES, len(n))).std(axis=1))
    dealt = draw.multivariate_hypergeometric(n, int(right.sum()), size=_RESAMPLES, method="marginals")
    return _around(recall_spread(recall), low, high, (dealt / n).std(axis=1))


def _middle(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _around(value: float, low: float, high: float, by_chance: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return an interval that holds `value`, and 0 unless what there is `by_chance` alone is below it in 95 % of cases."""
    if value <= np.quantile(by_chance, 0.95):
        low = 0.0
    return min(value, max(0.0, low)), max(value, high)
