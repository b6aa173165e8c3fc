"""Conversations → the text and tokens that a model is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.pairs import Message, fold_system
from training.recipe import Format

# Taori et al. 2023, "Alpaca: a strong, replicable instruction-following model", the form without an input.
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n"
)
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and an answer to it as text; together they are what the model reads.

    `is_whole` says that the text holds its special tokens already, so that the tokenizer adds none.
    """

    prompt: str
    answer: str
    is_whole: bool = False


def render(prompt: Sequence[Message], answer: str, form: Format, tokenizer: Any) -> Rendered:
    """Return prompt and answer as `form` writes them, the token that ends an answer included.

    `chat` is the tokenizer's template, system texts folded into the first user's turn where it knows none. `alpaca` and
    `plain` put several turns one after the other, each after its speaker. `verbatim` takes one user's turn as it is, and adds
    no end: the answer stands in the middle of a text, as the options of a question do.
    """
    end = tokenizer.eos_token or ""
    if form == "verbatim":
        return Rendered("\n\n".join(message.content for message in prompt), answer)
    if form == "chat":
        return _chat(prompt, answer, tokenizer)
    turns = fold_system(prompt)
    text = turns[0].content if len(turns) == 1 else "\n\n".join(f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
    if form == "alpaca":
        return Rendered(_ALPACA.format(text), answer + end)
    return Rendered(f"{text}\n\n" if len(turns) == 1 else f"{text}\n\nAssistant: ", answer + end)


def _chat(prompt: Sequence[Message], answer: str, tokenizer: Any) -> Rendered:
    from jinja2 import TemplateError

    def written(messages: Sequence[Message], **more: Any) -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        return str(tokenizer.apply_chat_template(rows, tokenize=False, **more))

    try:
        asked = written(prompt, add_generation_prompt=True)
    except TemplateError:  # it knows no system text
        prompt = fold_system(prompt)
        asked = written(prompt, add_generation_prompt=True)
    whole = written([*prompt, Message("assistant", answer)])
    if whole.startswith(asked) and whole[len(asked) :].startswith(answer.strip()):
        said = whole[len(asked) :].rstrip("\n")
    else:  # the template writes the last turn in another way than it asks for one
        said = answer
    end = tokenizer.eos_token or ""
    if said == answer.strip() or not said.endswith(end):
        said += end if said.strip() == answer.strip() else ""
    return Rendered(asked, said, is_whole=True)


def tokenize(rendered: Rendered, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and answer, tokenized together and cut where the prompt's own tokens end.

    So that a joint inside a token belongs to the answer, as when the answer is written after the prompt.
    """
    special = not rendered.is_whole
    prompt = tokenizer(rendered.prompt, add_special_tokens=special)["input_ids"]
    whole = tokenizer(rendered.prompt + rendered.answer, add_special_tokens=special)["input_ids"]
    if special and whole and whole[-1] == tokenizer.eos_token_id and not rendered.answer.endswith(tokenizer.eos_token or "\0"):
        whole = whole[:-1]  # a tokenizer that ends every text by itself
    shared = 0
    for one, other in zip(prompt, whole, strict=False):
        if one != other:
            break
        shared += 1
    shared = min(shared, len(whole) - 1)
    return whole[:shared], whole[shared:]
