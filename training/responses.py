"""Files of good answers → the answers whose likelihood an evaluation measures."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import UserError
from training.pairs import Message
from training.preferences import read_preferences

_QUESTION, _ANSWER = "Question", "Best Answer"  # of TruthfulQA


@dataclass(frozen=True, slots=True)
class Response:
    """A good answer to a prompt; `place` is where it stood."""

    prompt: tuple[Message, ...]
    answer: str
    place: str


def read_responses(path: Path) -> tuple[list[Response], list[str]]:
    """Return the chosen answers of a file of preferences, or the best ones of TruthfulQA's CSV, and why rows hold none.

    Raises UserError where the file cannot be read or holds no answer.
    """
    rows = list(_truthful(path) if path.suffix.lower() == ".csv" else _chosen(path))
    found = [row for row in rows if isinstance(row, Response)]
    bad = [row for row in rows if isinstance(row, str)]
    if not found:
        raise UserError(f"{path} holds no answer" + (f"; {bad[0]}" if bad else ""))
    return found, bad


def drawn(responses: Sequence[Response], use: int | float | None, seed: int) -> list[Response]:
    """Return so many of the responses, or such a fraction, drawn by what they say; all where `use` is None."""
    if use is None:
        return list(responses)
    wanted = use if isinstance(use, int) else max(1, round(use * len(responses)))

    def mark(response: Response) -> bytes:
        return hashlib.sha256(repr((seed, response.prompt, response.answer)).encode()).digest()

    return sorted(responses, key=mark)[:wanted]


def _chosen(path: Path) -> Iterator[Response | str]:
    for row in read_preferences(path):
        if row.pair is None:
            yield f"{path.name} row {row.line}: {row.error}"
        elif not row.pair.chosen.strip():
            yield f"{row.pair.place}: the chosen answer is empty"
        else:
            yield Response(row.pair.prompt, row.pair.chosen, row.pair.place)


def _truthful(path: Path) -> Iterator[Response | str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            there = reader.fieldnames or []
            missing = [name for name in (_QUESTION, _ANSWER) if name not in there]
            if missing:
                raise UserError(f"{path} has no column '{missing[0]}' (it has {', '.join(there) or 'none'})")
            for number, row in enumerate(reader, start=1):
                question, answer = (row[_QUESTION] or "").strip(), (row[_ANSWER] or "").strip()
                if question and answer:
                    yield Response((Message("user", question),), answer, f"{path.name} row {number}")
                else:
                    yield f"{path.name} row {number}: no '{_ANSWER if question else _QUESTION}'"
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV in UTF-8 ({error})") from error
