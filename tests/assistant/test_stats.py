import pytest

from assistant.stats import percent_with_interval, wilson


def test_known_intervals() -> None:
    # Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", and values worked out by hand.
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_words() -> None:
    assert percent_with_interval(45, 100) == "45.0 % (95 % interval 35.6-54.8 %, n = 100)"
    assert percent_with_interval(0, 0) == "not known (n = 0)"
