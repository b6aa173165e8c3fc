"""What the model reads, to the byte: training, answering and evaluation depend on it."""

import pytest

from assistant.mcq import MCQ, QuestionError
from assistant.prompt import render

QUESTION = MCQ("Which is red?", ("the sky", "blood"), "B")
EXAMPLES = [MCQ("Is it?", ("yes", "no"), "A"), MCQ("Which one?\nI or II", ("first", "second", "third"), "C")]


def test_without_examples_a_prompt_is_what_it_was() -> None:
    letter = render(QUESTION, ["best", "next"], "letter")
    assert letter.prefix == "next\n\nbest\n\nQuestion: Which is red?\nA. the sky\nB. blood\nAnswer:"
    assert letter.continuations == (" A", " B")
    cloze = render(QUESTION, ["best", "next"], "cloze")
    assert cloze.prefix == "next\n\nbest\n\nQuestion: Which is red?\nAnswer:"
    assert cloze.continuations == (" the sky", " blood")


def test_examples_stand_first_and_are_solved_in_the_same_format() -> None:
    letter = render(QUESTION, ["passage"], "letter", EXAMPLES)
    assert letter.prefix == (
        "Question: Is it?\nA. yes\nB. no\nAnswer: A\n\n"
        "Question: Which one?\nI or II\nA. first\nB. second\nC. third\nAnswer: C\n\n"
        "passage\n\nQuestion: Which is red?\nA. the sky\nB. blood\nAnswer:"
    )
    assert letter.continuations == (" A", " B")
    cloze = render(QUESTION, [], "cloze", EXAMPLES)
    assert cloze.prefix == (
        "Question: Is it?\nAnswer: yes\n\nQuestion: Which one?\nI or II\nAnswer: third\n\nQuestion: Which is red?\nAnswer:"
    )
    assert cloze.continuations == (" the sky", " blood")


def test_an_example_needs_its_key() -> None:
    with pytest.raises(QuestionError, match="'Is it\\?' has no key"):
        render(QUESTION, [], "cloze", [MCQ("Is it?", ("yes", "no"))])
