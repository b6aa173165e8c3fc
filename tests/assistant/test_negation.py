"""Questions that ask for what is not so, put plainly, and their scores turned round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.card import Template
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.negation import plain
from assistant.prompt import render
from assistant.scoring import score


@pytest.mark.parametrize(
    ("question", "plainly"),
    [
        ("Which of these is NOT a state of a process?", "Which of these is a state of a process?"),
        ("Which page isn't replaced?", "Which page is replaced?"),
        ("Which page isnot replaced?", "Which page is replaced?"),
        ("Which of the following did Linus Torvalds not write?", "Which of the following did Linus Torvalds write?"),
        ("Which of these cannot be swapped out?", "Which of these can be swapped out?"),
        ("Which of these can’t a thread own?", "Which of these can a thread own?"),
        ("In paging, which of these has not been swapped out?", "In paging, which of these has been swapped out?"),
        ("What is not a cause of thrashing?", "What is a cause of thrashing?"),
        ("Which of these would not be considered a deadlock?", "Which of these would be considered a deadlock?"),
        ("A fork copies a process. Which of these does it not copy?", "A fork copies a process. Which of these does it copy?"),
        ("All of the following are system calls, except:", "All of the following are system calls:"),
        ("A process may hold all of these except for ________.", "A process may hold all of these ________."),
        ("Each lowers the load except which of the following?", "Each lowers the load?"),
        ("Which statement about semaphores is false?", "Which statement about semaphores is true?"),
        ("Which of the following is an incorrect pairing?", "Which of the following is a correct pairing?"),
        ("Not true about inodes:", "true about inodes:"),
        ("Which is the LEAST likely to be paged out?", "Which is the most likely to be paged out?"),
    ],
)
def test_what_is_not_so_is_asked_plainly(question: str, plainly: str) -> None:
    assert plain(question) == plainly


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Which notation describes a knot?",
        "What does a fork cost at least?",
        "When a page is not in memory, which of these happens?",
        "A lock is not free. Which call waits for it?",
        "Why does the scheduler not wait?",
        "What is the term for a process that does not end?",
        "Which reason explains best why a semaphore is not a lock?",
        "Which is a process, but not a thread?",
        "Which of these is not only fast but fair?",
        "People who did not reboot are ________ to lose data.",
        "Which order goes from the least to the most costly?",
        "Which of these is not false?",
        "Which of these is no interrupt, or does nothing except wait for one?",
    ],
)
def test_other_questions_stay_as_they_are(question: str) -> None:
    assert plain(question) is None


@given(st.text(st.sampled_from("which is not except, least false ?._\nn't"), max_size=200))
def test_any_text_is_looked_through(text: str) -> None:
    found = plain(text)
    assert found is None or found != text


def test_scores_of_what_is_not_so_are_turned_round(lm: LanguageModel) -> None:
    options = ("Mars", "Venus", "a spoon")
    asked = {
        template.turns_negation: render(MCQ(question, options), ["Mars and Venus are planets."], "cloze", template=template)
        for question, template in (
            ("Which of these is a planet?", Template()),
            ("Which of these is not a planet?", Template(turns_negation=True)),
        )
    }
    assert asked[True].prefix == asked[False].prefix
    for normalization in ("sum", "token", "byte", "pmi"):
        straight, turned = score(lm, [asked[False], asked[True]], "cloze", normalization)
        assert turned.scores == pytest.approx([-value for value in straight.scores], abs=0.05)


def test_letters_and_solved_examples_are_asked_as_they_stand() -> None:
    template = Template(turns_negation=True)
    mcq = MCQ("Which of these is not a planet?", ("Mars", "a spoon"), "B")
    letters = render(mcq, [], "letter", [mcq], template)
    assert letters.prefix.count("is not a planet") == 2
    assert not letters.is_turned
    texts = render(mcq, [], "cloze", [mcq], template)
    assert texts.prefix.startswith(
        "Question: Which of these is not a planet?\nAnswer: a spoon\n\nQuestion: Which of these is a planet?"
    )
    assert texts.is_turned
