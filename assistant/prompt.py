"""MCQ + passages → prompt. The one renderer that answering, training and evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass

from assistant.mcq import MCQ
from assistant.model import ScoringKind


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads (`prefix`) and what it may go on with: one text for each option, its leading space included."""

    prefix: str
    continuations: tuple[str, ...]


def render(mcq: MCQ, passages: Sequence[str], scoring: ScoringKind) -> Prompt:
    """Render a question with its passages, most relevant last, so that the best stands next to the question.

    `letter` lists the options and continues with a letter; `cloze` lists nothing and continues with an option's text.
    `passages` come most relevant first.
    """
    context = "".join(f"{passage}\n\n" for passage in reversed(passages))
    if scoring == "letter":
        options = "".join(f"{letter}. {option}\n" for letter, option in zip(mcq.letters, mcq.options, strict=True))
        return Prompt(f"{context}Question: {mcq.question}\n{options}Answer:", tuple(f" {letter}" for letter in mcq.letters))
    return Prompt(f"{context}Question: {mcq.question}\nAnswer:", tuple(f" {option}" for option in mcq.options))
