"""Intervals for counts."""

from math import sqrt


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
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
