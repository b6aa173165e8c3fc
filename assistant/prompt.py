"""MCQ + passages → prompt. The one renderer that answering, training and evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from assistant.card import ScoringKind, Template
from assistant.mcq import MCQ, QuestionError
from assistant.negation import plain


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads (`prefix`) and what it may go on with: one text for each option, its leading space included.

    `shared` is the beginning of the prefix that other prompts have in common with it (an instruction, solved examples); it is
    read once for all of them. `ending` is what the prefix ends with, whatever the question. `is_turned` says that the question
    was put plainly and asks for what is not so: the option that fits least is the best, and scores count with the other sign.
    """

    prefix: str
    continuations: tuple[str, ...]
    shared: str = ""
    ending: str = "Answer:"
    is_turned: bool = False


def render(
    mcq: MCQ,
    passages: Sequence[str],
    scoring: ScoringKind,
    examples: Sequence[MCQ] = (),
    template: Template = Template(),  # noqa: B008 -- it cannot be changed
) -> Prompt:
    """Render a question with its passages, most relevant last, so that the best stands next to the question.

    `letter` lists the options and continues with a letter; `cloze` continues with an option's text. `passages` come most
    relevant first. `examples` are solved questions; they stand in front of all, as they are the same for many questions.
    Raises QuestionError where one of them has no key.
    """
    shared = template.start + "".join(_solved(example, scoring, template) for example in examples)
    context = "".join(template.passage.replace("{passage}", passage) for passage in reversed(passages))
    plainly = plain(mcq.question) if scoring == "cloze" and template.turns_negation else None
    asked = _question(mcq if plainly is None else replace(mcq, question=plainly), scoring, template)
    continuations = tuple(f" {text}" for text in (mcq.letters if scoring == "letter" else mcq.options))
    return Prompt(f"{shared}{context}{asked}", continuations, shared, template.answer.lstrip(), plainly is not None)


def _question(mcq: MCQ, scoring: ScoringKind, template: Template) -> str:
    options = ""
    if scoring == "letter" or template.lists_options:
        options = "".join(_option(*pair, template) for pair in zip(mcq.letters, mcq.options, strict=True))
    return template.question.replace("{question}", mcq.question) + options + template.answer


def _option(letter: str, option: str, template: Template) -> str:
    # The letter first: an option may hold "{letter}", a letter holds nothing.
    return template.option.replace("{letter}", letter).replace("{option}", option)


def _solved(example: MCQ, scoring: ScoringKind, template: Template) -> str:
    if example.answer is None:
        raise QuestionError(f"the example '{example.question}' has no key; give each example its 'answer'")
    right = example.answer if scoring == "letter" else example.options[example.answer_index]
    return f"{_question(example, scoring, template)} {right}\n\n"
