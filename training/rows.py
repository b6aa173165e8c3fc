"""Pairs and instructions → token ids within a length, and a count of what was cut or left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from assistant.scoring import Encoded
from ingest.errors import UserError
from training.pairs import Message, Pair
from training.recipe import Format
from training.render import render, tokenize


@dataclass(frozen=True, slots=True)
class Rows:
    """Prompts with their answers as token ids: two answers of a pair, the chosen first, or one of an instruction.

    `cut` counts rows of which an answer was shortened; `left_out` says why how many rows are not among them.
    """

    encoded: list[Encoded]
    cut: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of rows as metrics say them."""
        return {"rows": len(self.encoded), "cut": self.cut, "left_out": self.left_out}

    @property
    def reasons(self) -> str:
        """Why rows are not among them, in words."""
        return "; ".join(f"{count} left out: {reason}" for reason, count in self.left_out.items()) or "there was none"


def pair_rows(pairs: Sequence[Pair], tokenizer: Any, form: Format, longest: int) -> Rows:
    """Return the pairs as rows of at most `longest` tokens, prompt and one answer together.

    Longer answers are cut. Rows whose prompt leaves no token for an answer, and those whose answers are the same after the
    cut, teach nothing: they are left out. Raises UserError naming the pair where an answer is blank or both are the same.
    """
    for pair in pairs:
        if not pair.chosen.strip() or not pair.rejected.strip():
            which = "rejected" if pair.chosen.strip() else "chosen"
            raise UserError(f"{pair.place}: the {which} answer is empty; run the data through mcqa-train prepare")
        if pair.chosen == pair.rejected:
            raise UserError(f"{pair.place}: both answers are the same; run the data through mcqa-train prepare")
    return _rows([(pair.prompt, (pair.chosen, pair.rejected), pair.place) for pair in pairs], tokenizer, form, longest)


def _rows(wanted: Sequence[tuple[Sequence[Message], tuple[str, ...], str]], tokenizer: Any, form: Format, longest: int) -> Rows:
    kept: list[Encoded] = []
    cut = 0
    left_out: dict[str, int] = {}
    for prompt, answers, place in wanted:
        whole = _encoded(prompt, answers, tokenizer, form, place)
        room = longest - len(whole.prefix)
        row = Encoded(whole.prefix, [answer[: max(room, 0)] for answer in whole.continuations])
        reason = ""
        if room < 1:
            reason = "the prompt fills max_length"
        elif len(row.continuations) > 1 and row.continuations[0] == row.continuations[1]:
            reason = "the answers are the same up to max_length"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            kept.append(row)
            cut += row != whole
    return Rows(kept, cut, left_out)


def _encoded(prompt: Sequence[Message], answers: Sequence[str], tokenizer: Any, form: Format, place: str) -> Encoded:
    """Tokenize each answer behind the prompt; what all have in common of the prompt's own tokens is the shared part."""
    pairs = [tokenize(render(prompt, answer, form, tokenizer), tokenizer) for answer in answers]
    shared = 0
    for column in zip(*(ids for ids, _ in pairs), strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    if not shared or not all(ids for _, ids in pairs):
        what = "an answer" if shared else "the prompt"
        raise UserError(f"{place}: {what} holds no token of its own; leave the row out, or choose another format")
    return Encoded(pairs[0][0][:shared], [(ids + own)[shared:] for ids, own in pairs])


def answer_rows(rows: Sequence[tuple[Sequence[Message], str, str]], tokenizer: Any, form: Format, longest: int) -> Rows:
    """Return (prompt, answer, place) as rows of at most `longest` tokens, as `pair_rows` does."""
    for _, answer, place in rows:
        if not answer.strip():
            raise UserError(f"{place}: the answer is empty; leave the row out")
    return _rows([(prompt, (answer,), place) for prompt, answer, place in rows], tokenizer, form, longest)
