"""A preference pair: a prompt, the answer chosen and the one rejected."""

import hashlib
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple


class Layout(StrEnum):
    """The layouts of a row that are understood."""

    pair = "prompt-chosen-rejected"
    course = "course-labels"
    dialogue = "hh-rlhf"
    orca = "orca-dpo-pairs"
    scored = "ultrafeedback"
    sharegpt = "sharegpt"
    mcq = "mcq"  # made from questions, not read


class Message(NamedTuple):
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, which ends with a user's turn; `chosen` was preferred over `rejected`.

    `source` and `line` say where it stood: the name of its file, and the line, or the entry of a JSON list, from 1.
    `criteria` are the single judgments that course labels give beside the overall one, as (name, "chosen", "rejected" or
    "tie"); None where the layout knows none. `tied` says that neither answer was preferred.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str
    line: int
    criteria: tuple[tuple[str, str], ...] | None = None
    tied: bool = False

    @property
    def place(self) -> str:
        """Where the pair stood, as in "labels.json row 3"."""
        return f"{self.source} row {self.line}"


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair of a file, or why that row holds none. `layout` is None where none was recognized."""

    line: int
    pair: Pair | None
    error: str = ""
    layout: Layout | None = None


def fold_system(prompt: Sequence[Message]) -> tuple[Message, ...]:
    """Return `prompt` with its system text in front of the first user's turn: some chat templates know no system role."""
    system = "\n\n".join(message.content for message in prompt if message.role == "system")
    turns = [message for message in prompt if message.role != "system"]
    if not system:
        return tuple(turns)
    for index, message in enumerate(turns):
        if message.role == "user":
            turns[index] = Message("user", f"{system}\n\n{message.content}")
            return tuple(turns)
    return (Message("user", system), *turns)


def normalize(text: str) -> str:
    """Return `text` in its compatibility form (NFKC), case folded, white space and punctuation as single spaces.

    A text of punctuation alone keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_spaces()).split()) or " ".join(folded.split())


@cache
def _spaces() -> dict[int, str]:
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}


def prompt_key(pair: Pair) -> str:
    """Return what two pairs of one prompt have in common: its turns, normalized. A system text makes no other prompt."""
    return "\n".join(f"{turn.role} {normalize(turn.content)}" for turn in pair.prompt if turn.role != "system")


def fingerprint(pair: Pair, seed: int = 0) -> str:
    """Return a hash of what the pair says, not of where it stood: sorted by it, pairs stand in a random order of their own."""
    digest = hashlib.sha256(str(seed).encode())
    for text in (*(text for message in pair.prompt for text in message), pair.chosen, pair.rejected):
        digest.update(f"{len(text)} {text}".encode())
    return digest.hexdigest()
