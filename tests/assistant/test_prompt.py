"""What the model reads, to the byte: training, answering and evaluation depend on it."""

import pytest
from pydantic import ValidationError

from assistant.card import Template
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


def test_a_card_may_say_how_a_prompt_is_put_together() -> None:
    template = Template(
        start="Answer the questions.\n", passage="<{passage}>\n", question="Q: {question}\n", option="({letter}) {option}\n",
        answer="A:", lists_options=True,
    )  # fmt: skip
    question = MCQ("What is {option}?", ("a {letter}", "{passage}"), "B")
    shown = render(question, ["best {question}", "next"], "cloze", EXAMPLES[:1], template)
    assert shown.shared == "Answer the questions.\nQ: Is it?\n(A) yes\n(B) no\nA: yes\n\n"
    assert shown.prefix == (
        f"{shown.shared}<next>\n<best {{question}}>\nQ: What is {{option}}?\n(A) a {{letter}}\n(B) {{passage}}\nA:"
    )
    assert shown.continuations == (" a {letter}", " {passage}")
    assert shown.ending == "A:"


@pytest.mark.parametrize(
    "wrong", [{"question": "Question\n"}, {"option": "{option}\n"}, {"passage": "{passage}{passage}"}, {"answer": "Answer: "}]
)
def test_a_template_that_would_lose_something_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Template(**wrong)  # type: ignore[arg-type]
