"""How much a figure over prompts would differ with other prompts: the bootstrap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

_RESAMPLES = 2000
_BLOCK = 4_000_000  # numbers that are drawn at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Any, groups: Sequence[str], seed: int = 0) -> Estimate:
    """Return the mean of `values`, one for each row; rows of one group, as of one prompt, are drawn together."""
    numbers = np.asarray(values, dtype=np.float64)
    return of_sums([numbers, np.ones_like(numbers)], groups, lambda total, n: total / n, seed)


def of_sums(
    columns: Sequence[Any], groups: Sequence[str], figure: Callable[..., np.ndarray | np.float64], seed: int = 0
) -> Estimate:
    """Return `figure`, a function of the sums of `columns`, with the interval of its percentile bootstrap over groups.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979; rows of a group depend on each other,
    and so groups are drawn, not rows (Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8). The
    same columns, groups and seed give the same interval, and the same groups and seed the same draws, so that a figure of
    several columns is one of pairs. Of a single group, nothing is known: (-inf, inf).
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.stack([np.bincount(place, weights=column, minlength=len(names)) for column in columns], axis=1)
    value = float(figure(*totals.sum(axis=0)))
    if len(names) < 2:
        return Estimate(value, -inf, inf)
    draw = np.random.default_rng(seed)
    size = max(1, _BLOCK // totals.size)
    found = []
    for start in range(0, _RESAMPLES, size):
        drawn = draw.integers(len(names), size=(min(size, _RESAMPLES - start), len(names)))
        found.append(figure(*totals[drawn].sum(axis=1).T))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Estimate(value, float(low), float(high))
