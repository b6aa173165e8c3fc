"""Letters without favorites: rotations that come back, and priors that are recovered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.debias import averaged, letter_priors, rotated, shifts, unrotated
from assistant.mcq import MCQ


@given(st.integers(2, 10), st.integers(0, 9))
def test_a_rotation_comes_back(options: int, shift: int) -> None:
    mcq = MCQ("Which?", tuple(f"option {number}" for number in range(options)), "A")
    moved = rotated(mcq, shift)
    assert sorted(moved.options) == sorted(mcq.options)
    values = [float(mcq.options.index(option)) for option in moved.options]
    assert unrotated(values, shift) == [float(number) for number in range(options)]


def test_rotations_are_spread_and_hold_the_given_order() -> None:
    assert shifts(4, 1) == [0]
    assert shifts(4, 2) == [0, 2]
    assert shifts(4, 9) == [0, 1, 2, 3]
    assert shifts(10, 3) == [0, 3, 6]


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=10))
def test_all_rotations_together_have_no_favorite_letter(bias: list[float]) -> None:
    n = len(bias)
    share = tuple(np.asarray(bias) / sum(bias))  # whatever stands there, letter i has this probability
    assert averaged([(shift, share) for shift in range(n)]) == pytest.approx([1 / n] * n)


@given(st.lists(st.floats(0.1, 1), min_size=2, max_size=10), st.integers(0, 2**16))
def test_priors_are_recovered_from_what_they_did(bias: list[float], seed: int) -> None:
    n = len(bias)
    prior = np.asarray(bias) / sum(bias)
    questions = []
    for content in np.random.default_rng(seed).dirichlet([1.0] * n, size=3) + 1e-3:
        rotations = []
        for shift in range(n):
            seen = prior * np.asarray([content[(place - shift) % n] for place in range(n)])
            rotations.append(np.log(seen / seen.sum()).tolist())
        questions.append(rotations)
    assert letter_priors(questions) == pytest.approx(np.log(prior).tolist(), abs=1e-6)
