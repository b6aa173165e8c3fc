"""Keyed questions → preference pairs: the right option before a wrong one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assistant.card import ScoringKind
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.prompt import render
from ingest.errors import UserError
from training.pairs import Layout, Message, Pair, PairRow
from training.preferences import RowError
from training.records import read_records


def read_pairs(questions: Path, scoring: ScoringKind, answers: Path | None = None) -> Iterator[PairRow]:
    """Yield the pairs of a file of keyed questions: the right option against each wrong one.

    Prompt and completions are those that the assistant scores, the space before a completion included. With `answers`, what
    `mcqa batch` wrote for the same file (.jsonl), each question gives one pair: the right option against the wrong one that
    the model held likeliest. A question without a key, or without its answer, is yielded with its error. Raises UserError
    where a file as a whole cannot be read.
    """
    given = None if answers is None else _read_answers(answers)
    for row in read_mcqs(questions):
        try:
            if row.mcq is None:
                raise RowError(row.error)
            if row.mcq.answer is None:
                raise RowError("the question has no key; give it its 'answer'")
            wrong = [letter for letter in row.mcq.letters if letter != row.mcq.answer]
            if given is not None:
                probabilities = _probabilities(given.get(row.line), row.mcq, row.line)
                wrong = [max(wrong, key=lambda letter: probabilities[letter])]
        except RowError as error:
            yield PairRow(row.line, None, str(error), Layout.mcq)
            continue
        prompt = render(row.mcq, (), scoring)
        said = dict(zip(row.mcq.letters, prompt.continuations, strict=True))
        for letter in wrong:
            message = Message("user", prompt.prefix)
            pair = Pair((message,), said[row.mcq.answer], said[letter], questions.name, row.line)
            yield PairRow(row.line, pair, layout=Layout.mcq)


def _read_answers(path: Path) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for record in read_records(path):
        if record.error:
            raise UserError(f"{path} line {record.line}: {record.error}")
        if not isinstance(record.value, dict) or not isinstance(record.value.get("line"), int):
            raise UserError(f"{path} line {record.line} is no answer; give a file that `mcqa batch` wrote as .jsonl")
        found[record.value["line"]] = record.value
    return found


def _probabilities(answer: Mapping[str, Any] | None, mcq: MCQ, line: int) -> Mapping[str, float]:
    """Return the options' probabilities in an answer of `mcqa batch`; raises RowError where it answers another question."""
    if answer is None:
        raise RowError(f"the file of answers has none for line {line}")
    if "error" in answer:
        raise RowError(f"the model gave no answer ({answer['error']})")
    if answer.get("question", mcq.question) != mcq.question:
        raise RowError("the file of answers has another question here; run `mcqa batch` on this file again")
    found = answer.get("probabilities")
    if not isinstance(found, dict) or not all(isinstance(found.get(letter), int | float) for letter in mcq.letters):
        raise RowError(f"the answer has no probability for each of {', '.join(mcq.letters)}")
    return found
