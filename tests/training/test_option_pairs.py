"""Keyed questions as preference pairs: what the assistant would score, the right option before wrong ones."""

import dataclasses

import pytest

from assistant.answer import Assistant
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from ingest.course import Course
from training.gather import Asked
from training.option_pairs import option_pairs

MCQ_ = MCQ("Which bit says that a page was modified?", ("present", "dirty", "user"), "B")
DENIED = MCQ("Which of these is not a bit of a page table entry?", ("present", "a spoon", "dirty"), "B")


def turning(lm: LanguageModel, turns: bool) -> LanguageModel:
    template = lm.card.template.model_copy(update={"turns_negation": turns})
    return dataclasses.replace(lm, card=lm.card.model_copy(update={"template": template}))


def test_the_right_option_stands_before_each_wrong_one(lm: LanguageModel) -> None:
    pairs = option_pairs(lm, [Asked("line 1", MCQ_, fact="The dirty bit is set by a write.")], "cloze", 0)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(" dirty", " present"), (" dirty", " user")]
    assert {pair.prompt[0].content for pair in pairs} == {
        "The dirty bit is set by a write.\n\nQuestion: Which bit says that a page was modified?\nAnswer:"
    }


@pytest.mark.parametrize("mcq", [MCQ_, DENIED], ids=["plain", "denied"])
def test_the_hardest_is_what_the_model_takes_for_right(lm: LanguageModel, operating_systems: Course, mcq: MCQ) -> None:
    lm = turning(lm, True)
    (pair,) = option_pairs(lm, [Asked("line 1", mcq, course=operating_systems.name)], "cloze", 2, hardest=True)
    answer = Assistant(lm, operating_systems, passages=2).answer(mcq)
    scores = dict(zip(mcq.options, answer.parts.model, strict=True))
    hardest = max((option for option in mcq.options if option != mcq.options[1]), key=lambda option: scores[option])
    said = (pair.chosen.strip(), pair.rejected.strip())
    assert said == ((mcq.options[1], hardest) if mcq is MCQ_ else (hardest, mcq.options[1]))
    assert all(hit.passage.text in pair.prompt[0].content for hit in answer.sources)


def test_without_turning_what_is_not_so_is_asked_as_it_stands(lm: LanguageModel) -> None:
    (pair, _) = option_pairs(turning(lm, False), [Asked("line 1", DENIED)], "cloze", 0)
    assert pair.chosen == " a spoon"
    assert "is not a bit" in pair.prompt[0].content


def test_a_question_made_of_a_course_s_text_is_paired_over_other_passages(lm: LanguageModel, operating_systems: Course) -> None:
    text = "a page that was never modified need not be written back"
    asked = Asked(
        "line 1", MCQ("Which bit saves work when a page is evicted?", ("present", "dirty"), "B"), course=operating_systems.name
    )
    (plain,) = option_pairs(lm, [asked], "cloze", 2)
    (hidden,) = option_pairs(lm, [dataclasses.replace(asked, made_of=text)], "cloze", 2)
    assert text in plain.prompt[0].content
    assert text not in hidden.prompt[0].content
