"""Conversations → the text and tokens that a model is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.errors import UserError
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
    no end: the answer stands in the middle of a text, as the options of a question do. `answer` is not blank. Raises UserError
    where the tokenizer has no chat template.
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

    if not tokenizer.chat_template:
        raise UserError("the model's tokenizer has no chat template; set format: plain or format: alpaca in the recipe")
    try:
        asked = written(prompt, add_generation_prompt=True)
    except TemplateError:  # it knows no system text
        prompt = fold_system(prompt)
        asked = written(prompt, add_generation_prompt=True)
    whole = written([*prompt, Message("assistant", answer)])
    # Where the template writes an answer in another way than it asks for one, it is not found, and stands alone.
    before, said, after = whole[len(asked) :].rpartition(answer.strip()) if whole.startswith(asked) else ("", "", "")
    # What closes the turn belongs to the answer, not the white space between turns; a template that closes none gets an end.
    return Rendered(asked, before + (said or answer) + (after.rstrip() or tokenizer.eos_token or ""), is_whole=True)


def tokenize(rendered: Rendered, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and answer, tokenized together and cut where the prompt's own tokens end.

    A token that holds the end of the prompt and the beginning of the answer belongs to the answer, which is never empty.
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
