from itertools import product
from math import log

import numpy as np
import pytest

from assistant.stats import (
    at_coverage,
    brier_score,
    calibration_error_interval,
    coverage_curve,
    expected_calibration_error,
    mcnemar_exact,
    negative_log_likelihood,
    paired_difference,
    percent_with_interval,
    recall_spread,
    recall_spread_interval,
    recalls,
    wilson,
)


def test_known_intervals() -> None:
    # Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", and values worked out by hand.
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_words() -> None:
    assert percent_with_interval(45, 100) == "45.0 % (95 % interval 35.6-54.8 %, n = 100)"
    assert percent_with_interval(0, 0) == "not known (n = 0)"


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 0.0625),  # 2 / 32
        (0, 6, 0.03125),  # 2 / 64
        (8, 2, 0.109375),  # 2 * (1 + 10 + 45) / 1024
        (7, 7, 1.0),  # more than 1 before it is cut
        (10, 3, 0.092285156),  # 2 * (1 + 13 + 78 + 286) / 8192
    ],
)
def test_mcnemar_against_binomials_worked_out_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar_exact(b, c) == pytest.approx(p, abs=1e-9)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_counts_what_coins_do() -> None:
    for b, c in ((4, 1), (6, 3), (2, 5)):
        tosses = [sum(toss) for toss in product((0, 1), repeat=b + c)]
        as_uneven = sum(abs(heads - (b + c) / 2) >= abs(b - (b + c) / 2) for heads in tosses)
        assert mcnemar_exact(b, c) == pytest.approx(as_uneven / len(tosses))


def test_mcnemar_of_a_whole_benchmark_neither_overflows_nor_vanishes() -> None:
    assert mcnemar_exact(3600, 3400) == pytest.approx(0.01735, abs=2e-4)  # the normal approximation, with its correction
    assert 0 < mcnemar_exact(700, 100) < 1e-90


def test_the_interval_of_a_gain() -> None:
    low, high = paired_difference(b=15, c=5, n=100)
    # By hand: 10/102 -+ 1.96 * sqrt(21 - 100/102) / 102.
    assert (low, high) == pytest.approx((0.01207, 0.18401), abs=1e-4)
    assert paired_difference(5, 15, 100) == pytest.approx((-high, -low))
    low, high = paired_difference(0, 0, 50)  # no difference seen is not a difference known to be none
    assert low < 0 < high
    assert paired_difference(0, 0, 0) == (-1.0, 1.0)
    assert all(-1 <= end <= 1 for end in paired_difference(1, 0, 1))


def test_the_interval_of_a_gain_covers_the_truth() -> None:
    draw = np.random.default_rng(3)
    trials = draw.multinomial(150, [0.15, 0.08, 0.77], size=2000)
    covered = [low <= 0.07 <= high for low, high in (paired_difference(int(b), int(c), 150) for b, c, _ in trials)]
    assert 0.935 < np.mean(covered) < 0.975


def test_calibration_of_constructed_cases() -> None:
    perfect, bins = expected_calibration_error([0.75] * 4 + [1.0], [True, True, True, False, True])
    assert perfect == pytest.approx(0)
    assert [(one.low, one.high, one.n, one.right) for one in bins] == [(0.7, 0.8, 4, 3), (0.9, 1.0, 1, 1)]
    always_sure, _ = expected_calibration_error([1.0] * 4, [True, False, False, False])
    assert always_sure == pytest.approx(0.75)
    # Two bins of three and one answers: 3/4 * |0.3 - 1/3| + 1/4 * |0.9 - 0|.
    mixed, bins = expected_calibration_error([0.25, 0.3, 0.35, 0.9], [True, False, False, False], bins=2)
    assert mixed == pytest.approx(0.75 * (1 / 3 - 0.3) + 0.25 * 0.9)
    assert [one.confidence for one in bins] == pytest.approx([0.3, 0.9])
    # Too sure here and not sure enough there make no zero together.
    assert expected_calibration_error([0.2, 0.9], [True, False])[0] == pytest.approx((0.8 + 0.9) / 2)
    assert expected_calibration_error([], []) == (0.0, ())


def test_the_interval_of_the_calibration_error_begins_at_0_unless_chance_is_ruled_out() -> None:
    draw = np.random.default_rng(1)
    sure = draw.uniform(0.25, 1.0, size=200)
    honest = list(draw.uniform(size=200) < sure)
    value, _ = expected_calibration_error(list(sure), honest)
    low, high = calibration_error_interval(list(sure), honest)
    assert value > 0.01  # by chance alone
    assert low == 0.0
    assert high < 0.2
    low, high = calibration_error_interval([0.9] * 200, [index % 2 == 0 for index in range(200)])
    assert low < 0.4 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 200**0.5, rel=0.15)
    assert calibration_error_interval(list(sure), honest) == calibration_error_interval(list(sure), honest)


def test_coverage_takes_the_surest_first_and_equals_together() -> None:
    sure, right = [0.5, 0.9, 0.5, 0.7], [True, True, False, False]
    curve = coverage_curve(sure, right)
    assert curve == [(1, 1), (2, 1), (4, 2)]
    assert coverage_curve(sure[::-1], right[::-1]) == curve
    assert at_coverage(curve, 0.25) == (1, 1)
    assert at_coverage(curve, 0.51) == (4, 2)
    assert at_coverage(curve, 1.0) == (4, 2)


def test_proper_scores() -> None:
    assert negative_log_likelihood([0.5, 0.25]) == pytest.approx((log(2) + log(4)) / 2)
    assert negative_log_likelihood([0.0]) == pytest.approx(-log(1e-12))
    assert brier_score([(1.0, 0.0)], [0]) == 0
    assert brier_score([(1.0, 0.0)], [1]) == 2
    assert brier_score([(0.5, 0.5), (0.2, 0.3, 0.5)], [0, 2]) == pytest.approx((0.5 + 0.04 + 0.09 + 0.25) / 2)


def test_recall_by_letter_and_its_spread() -> None:
    found = recalls("ABBCCCA", "ABACAAB")
    assert found == {"A": (1, 2), "B": (1, 2), "C": (1, 3)}
    assert list(found) == ["A", "B", "C"]
    assert recall_spread({"A": (1, 2), "B": (0, 4)}) == pytest.approx(0.25)
    assert recall_spread({"A": (3, 4), "B": (6, 8)}) == 0
    # Always "A": every A right, no other. Standard deviation of (1, 0, 0, 0).
    assert recall_spread(recalls("ABCD" * 5, "AAAA" * 5)) == pytest.approx(3**0.5 / 4)


def test_the_interval_of_the_spread_knows_chance_from_bias() -> None:
    by_chance = {"A": (28, 50), "B": (24, 50), "C": (22, 50), "D": (26, 50)}
    low, high = recall_spread_interval(by_chance)
    assert (low, high < 0.15) == (0, True)
    biased = {"A": (45, 50), "B": (20, 50), "C": (20, 50), "D": (20, 50)}
    low, high = recall_spread_interval(biased)
    assert 0.15 < low < recall_spread(biased) < high < 0.3
    always_a = {"A": (5, 5), "B": (0, 5), "C": (0, 5), "D": (0, 5)}
    low, high = recall_spread_interval(always_a)
    assert low < 0.4 < high == recall_spread(always_a)  # twenty answers do not prove that it is always so


def test_the_intervals_of_spread_and_calibration_cover_the_truth() -> None:
    draw = np.random.default_rng(7)
    truth = [0.7, 0.5, 0.5, 0.3]
    covered = []
    for _ in range(200):
        right = draw.binomial(50, truth)
        low, high = recall_spread_interval({letter: (int(k), 50) for letter, k in zip("ABCD", right, strict=True)})
        covered.append(low <= np.std(truth) <= high)
    assert np.mean(covered) > 0.88
    covered = []
    for _ in range(30):
        sure = draw.uniform(0.3, 0.9, size=200)
        low, high = calibration_error_interval(list(sure), list(draw.uniform(size=200) < sure - 0.2))
        covered.append(low <= 0.2 <= high)
    assert np.mean(covered) > 0.85
