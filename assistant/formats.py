"""Files of questions → MCQ records: JSONL and JSON in the 2024 and 2025 course layouts, and CSV."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.mcq import LETTERS, MCQ, QuestionError, letter_of_label, parse_question
from ingest.errors import UserError


@dataclass(frozen=True, slots=True)
class Row:
    """One question of a file, or why that row holds none. `line` is where it stands, counted from 1.

    `fields` are all keys of the row as they stand in a JSON file, those that an MCQ has no place for included.
    """

    line: int
    mcq: MCQ | None
    error: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_mcqs(path: Path) -> Iterator[Row]:
    """Yield the questions of `path` in order, one at a time; the kind of file is told by its suffix.

    - `.jsonl`, `.json` (a list): 2025 layout `{"question", "choices": [...], "answer": "B"}` or 2024 layout
      `{"subject", "question": "Question: ...\\n\\nOptions:\\nA. ...", "answer": "A"}`; other keys are left alone.
    - `.csv`: a header `question,A,B,...,answer` (also `id`, `subject`), or without one `question,A,B,C,D,letter`.

    A row that holds no question is yielded with its error. Raises UserError where the file as a whole cannot be read.
    """
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown kind of question file; use one of {', '.join(readers)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                except ValueError as error:
                    yield Row(number, None, _not_json(error))
                else:
                    yield _row(number, record)


def _read_json(path: Path) -> Iterator[Row]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {_not_json(error)}; if it holds one object a line, name it .jsonl") from error
    if not isinstance(records, list):
        raise UserError(f"{path}: expected a list of questions; if it holds one object a line, name it .jsonl")
    for number, record in enumerate(records, start=1):
        yield _row(number, record)


def _not_json(error: ValueError) -> str:
    place = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    return f"not valid JSON ({error.msg if isinstance(error, json.JSONDecodeError) else error}{place})"


def _row(number: int, record: Any) -> Row:
    fields = record if isinstance(record, dict) else {}
    try:
        return Row(number, _from_record(record), fields=fields)
    except QuestionError as error:
        return Row(number, None, str(error), fields)


def _from_record(record: Any) -> MCQ:
    if not isinstance(record, dict):
        raise QuestionError(f"expected an object with 'question', found {type(record).__name__}")
    question = record.get("question")
    if not isinstance(question, str):
        raise QuestionError("no 'question' (a text)" + (f"; the keys are {', '.join(record)}" if record else ""))
    names: dict[str, str | None] = {key: None if record.get(key) is None else str(record[key]) for key in ("id", "subject")}
    choices = record.get("choices")
    if choices is None:  # 2024 layout: the options are inside the text
        parsed = parse_question(question)
        options, key = parsed.options, record.get("answer") or parsed.answer
        question = parsed.question
    else:
        if not isinstance(choices, list) or not all(isinstance(choice, str | int | float) for choice in choices):
            raise QuestionError("'choices' must be a list of texts")
        options, key = tuple(str(choice) for choice in choices), record.get("answer")
    return MCQ(question.strip(), options, _key(key, options), **names)


def _key(key: Any, options: tuple[str, ...]) -> str | None:
    if key is None or key == "":
        return None
    if not isinstance(key, str):
        raise QuestionError(f"'answer' must be a letter, not {key!r}")
    return letter_of_label(key, LETTERS[: len(options)])


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header: list[str] | None = None
        first = True
        try:
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    continue
                if first and "question" in (names := [cell.strip().lower() for cell in cells]):
                    header = names
                else:
                    yield _csv_row(rows.line_num, cells, header)
                first = False
        except csv.Error as error:
            raise UserError(f"{path} line {rows.line_num}: not valid CSV ({error})") from error


def _csv_row(number: int, cells: list[str], header: list[str] | None) -> Row:
    try:
        if header is None:
            if len(cells) < 4:
                raise QuestionError(f"expected question, options and letter, found {len(cells)} cells")
            question, *choices, key = cells
            named: dict[str, str] = {}
        else:
            if len(cells) != len(header):
                raise QuestionError(f"{len(cells)} cells under a header of {len(header)}; quote cells that hold commas")
            named = dict(zip(header, cells, strict=True))
            question, key = named["question"], named.get("answer", "")
            choices = [named[letter] for letter in LETTERS.lower() if letter in named]
            while choices and not choices[-1].strip():  # questions of one file may have fewer options than its header
                choices.pop()
        record = {"question": question, "choices": choices, "answer": key}
        return _row(number, record | {key: named[key] for key in ("id", "subject") if named.get(key)})
    except QuestionError as error:
        return Row(number, None, str(error))
