"""MCQ + passages → prompt. The one renderer that answering, training and evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass

from assistant.mcq import MCQ, QuestionError
from assistant.model import ScoringKind


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads (`prefix`) and what it may go on with: one text for each option, its leading space included."""

    prefix: str
    continuations: tuple[str, ...]


def render(mcq: MCQ, passages: Sequence[str], scoring: ScoringKind, examples: Sequence[MCQ] = ()) -> Prompt:
    """Render a question with its passages, most relevant last, so that the best stands next to the question.

    `letter` lists the options and continues with a letter; `cloze` lists nothing and continues with an option's text.
    `passages` come most relevant first. `examples` are solved questions; they stand in front of all, as they are the same
    for many questions. Raises QuestionError where one of them has no key.
    """
    context = "".join(_solved(example, scoring) for example in examples)
    context += "".join(f"{passage}\n\n" for passage in reversed(passages))
    if scoring == "letter":
        options = "".join(f"{letter}. {option}\n" for letter, option in zip(mcq.letters, mcq.options, strict=True))
        return Prompt(f"{context}Question: {mcq.question}\n{options}Answer:", tuple(f" {letter}" for letter in mcq.letters))
    return Prompt(f"{context}Question: {mcq.question}\nAnswer:", tuple(f" {option}" for option in mcq.options))


def _solved(example: MCQ, scoring: ScoringKind) -> str:
    if example.answer is None:
        raise QuestionError(f"the example '{example.question}' has no key; give each example its 'answer'")
    prompt = render(example, (), scoring)
    return f"{prompt.prefix}{prompt.continuations[example.letters.index(example.answer)]}\n\n"
