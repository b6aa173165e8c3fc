"""Files of questions → MCQ records: the two course layouts, MMLU, ARC, OpenBookQA, MedMCQA, GPQA, and CSV with a header."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from assistant.mcq import LETTERS, MCQ, NUMBERS, QuestionError, letter_of_label, parse_question, plain_labels
from ingest.errors import UserError, did_you_mean


class Format(StrEnum):
    """The layouts of a row that are understood."""

    course_2024 = "course-2024"
    course_2025 = "course-2025"
    mmlu = "mmlu"
    arc = "arc"
    openbookqa = "openbookqa"
    medmcqa = "medmcqa"
    gpqa = "gpqa"
    csv = "csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One question of a file, or why that row holds none. `line` is where it stands, counted from 1.

    In a JSON list `line` counts the entries of the list; a CSV row of several lines stands where it begins. `fields` are
    all keys of the row as they stand in the file, those that an MCQ has no place for included.
    """

    line: int
    mcq: MCQ | None
    error: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_mcqs(path: Path, format: str | None = None) -> Iterator[Row]:  # noqa: A002 -- as the option is named
    """Yield the questions of `path` in order, one at a time. Every row's layout is told by its keys.

    - course-2024: `{"subject", "question": "Question: ...\\n\\nOptions:\\nA. ...", "answer": "A"}`, options in the text
    - course-2025: `{"question", "choices": ["...", ...], "answer": "B"}`
    - arc: `{"question": {"stem", "choices": [{"text", "label"}, ...]}, "answerKey"}`, or `"choices"` beside the question,
      also as `{"text": [...], "label": [...]}`; labels are letters or numbers
    - openbookqa: as arc, with `fact1`
    - medmcqa: `{"question", "opa", "opb", "opc", "opd", "cop"}`, `cop` counted from 1
    - gpqa: `{"Question", "Correct Answer", "Incorrect Answer 1", ...}`, the options in an order of their own, the same always
    - mmlu: CSV without a header, `question,A,B,C,D,letter`; a name like `anatomy_test.csv` gives the subject
    - csv: CSV with a header `question,A,B,...,answer` (also `1,2,...`, `id`, `subject`)

    `.jsonl` holds an object a line, `.json` the same or a list of objects, `.csv` one of the last two, medmcqa or gpqa. Where
    `format` is given, rows are read in that layout and no other. A row that holds no question is yielded with its error;
    other keys are left alone. Raises UserError where the file as a whole cannot be read.
    """
    if format is not None and format not in list(Format):
        raise UserError(
            f"'{format}' is no layout of questions{did_you_mean(format, list(Format))}; use one of {', '.join(Format)}"
        )
    readers = {".jsonl": _read_lines, ".json": _read_json, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file of questions in it")
    if reader is None:
        raise UserError(f"{path}: unknown kind of question file; use one of {', '.join(readers)}")
    try:
        # Bytes that are no UTF-8 spoil their own row only: they are kept as surrogates, which no MCQ takes.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="" if reader is _read_csv else None) as file:
            if file.read(1) in ("\udcff", "\udcfe", "\0"):
                raise UserError(f"{path} is not UTF-8 text; save it as UTF-8")
            file.seek(0)
            yield from reader(file, path, None if format is None else Format(format))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def counts_entries(path: Path) -> bool:
    """Return whether the rows of `path` are counted by their place in a JSON list, not by line."""
    if path.suffix.lower() != ".json":
        return False
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return _begins_list(file)


def _begins_list(file: TextIO) -> bool:
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    return first.lstrip().startswith("[")


def _read_lines(file: TextIO, _path: Path, layout: Format | None) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, None, not_json(error, line))
            else:
                yield _row(number, record, layout)


def _read_json(file: TextIO, path: Path, layout: Format | None) -> Iterator[Row]:
    if not _begins_list(file):
        _refuse_single_object(file, path)
        yield from _read_lines(file, path, layout)
        return
    text = file.read()
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {not_json(error, text)}") from error
    for number, record in enumerate(records, start=1):
        yield _row(number, record, layout)


def _refuse_single_object(file: TextIO, path: Path) -> None:
    """Raise UserError where the file is one object over several lines: none of its lines is a row."""
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    if first.strip() == "{":
        try:
            single = isinstance(json.load(file), dict)
        except (ValueError, RecursionError):
            single = False
        file.seek(0)
        if single:
            raise UserError(f"{path} holds a single object; write a list of questions, or one object a line")


def not_json(error: Exception, text: str) -> str:
    """Return why `text` could not be read as JSON, with the place."""
    if any("\udc80" <= character <= "\udcff" for character in text):
        return "not UTF-8 text; save the file as UTF-8"
    if not isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({'nested too deeply' if isinstance(error, RecursionError) else error})"
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
    return f"not valid JSON ({error.msg}, {place})"


def _read_csv(file: TextIO, path: Path, layout: Format | None) -> Iterator[Row]:
    named = re.fullmatch(r"(.+)_(?:test|dev|val|train)", path.stem)
    subject = named[1] if named else None
    rows = csv.reader(file)
    header: list[str] | None = None
    first = True
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, None, f"not valid CSV ({error}); is a quotation mark left open?")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if first and _is_header(names := [cell.strip().lower() for cell in cells]):
            header = names
            if twice := sorted({name for name in names if name and names.count(name) > 1}):
                raise UserError(f"{path}: the header names {', '.join(twice)} twice; give every column its own name")
        elif header is None:
            yield _row(number, _Cells(tuple(cells), subject), layout)
        elif len(cells) == len(header):
            yield _row(number, dict(zip(header, cells, strict=True)), layout)
        else:
            lines = f" on lines {number} to {rows.line_num}" if rows.line_num > number else ""
            remedy = "close the quotation mark that is left open" if lines else "quote cells that hold commas"
            yield Row(number, None, f"{len(cells)} cells{lines} under a header of {len(header)}; {remedy}")
        first = False


def _is_header(names: Sequence[str]) -> bool:
    if not any(name in names for name in _QUESTION):
        return False
    # "question" may be an option of the first question; then a key comes last.
    return {"a", "b"} <= set(names) or {"1", "2"} <= set(names) or names[-1].upper() not in (*LETTERS, *NUMBERS)


@dataclass(frozen=True, slots=True)
class _Cells:
    """A CSV row without a header, and the subject that the file's name gives."""

    cells: tuple[str, ...]
    subject: str | None


def _row(number: int, record: Any, layout: Format | None) -> Row:
    fields = record if isinstance(record, dict) else {}
    try:
        if not isinstance(record, dict | _Cells):
            raise QuestionError(f"expected an object with 'question', found {type(record).__name__}")
        seen = _recognize(record)
        try:
            return Row(number, _READERS[layout or seen](record), fields=fields)
        except QuestionError as error:
            if layout in (None, seen):
                raise
            raise QuestionError(f"not in layout {layout}, it looks like {seen}: {error}") from error
    except QuestionError as error:
        return Row(number, None, str(error), fields)


def _recognize(record: Mapping[str, Any] | _Cells) -> Format:
    """Return the layout that the keys of a row belong to."""
    if isinstance(record, _Cells):
        return Format.mmlu
    choices = record.get("choices")
    if any(str(name).strip().lower() == _CORRECT for name in record):
        return Format.gpqa
    if record.get("opa") is not None:
        return Format.medmcqa
    if (
        isinstance(record.get("question"), dict)
        or isinstance(choices, dict)
        or (isinstance(choices, list) and any(isinstance(choice, dict) for choice in choices))
    ):
        return Format.openbookqa if "fact1" in record else Format.arc
    if choices is not None:
        return Format.course_2025
    return Format.csv if _option_columns(record) else Format.course_2024


def _course_2024(record: Any) -> MCQ:
    text = _text(record, "question")
    try:
        mcq = parse_question(text, _key(record.get("answer")))
    except QuestionError as error:
        known = "" if "choices" in record or "no options" not in str(error) else "no 'choices' (or 'A', 'B', ...), and "
        raise QuestionError(f"{known}{error}") from error
    return replace(mcq, **_named(record))


def _course_2025(record: Any) -> MCQ:
    question, choices = _text(record, "question"), record.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str | int | float) for choice in choices):
        raise QuestionError("'choices' must be a list of texts")
    return _mcq(record, question, [str(choice) for choice in choices], LETTERS, record.get("answer"))


def _mmlu(record: Any) -> MCQ:
    if not isinstance(record, _Cells):
        raise QuestionError("expected a row of a CSV file without a header: question, options, letter")
    if len(record.cells) < 4:
        raise QuestionError(
            f"expected question, options and letter, separated by commas, found {len(record.cells)} "
            f"cell{'' if len(record.cells) == 1 else 's'}"
        )
    question, *choices, key = record.cells
    return _mcq({"subject": record.subject}, question, _without_empty_end(choices), LETTERS, key)


def _arc(record: Any) -> MCQ:
    question = _field(record, "question")
    holder = question if isinstance(question, dict) else record
    stem = _text(question, "stem") if isinstance(question, dict) else _text(record, "question")
    choices = holder.get("choices")
    texts: Any
    labels: Any
    if isinstance(choices, dict):
        texts, labels = choices.get("text"), choices.get("label")
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        texts, labels = ([choice.get(key) for choice in choices] for key in ("text", "label"))
    else:
        raise QuestionError("'choices' must be a list of {text, label}, or {text: [...], label: [...]}")
    if not _are_texts(texts) or not _are_texts(labels) or len(texts) != len(labels):
        raise QuestionError("every choice needs a 'text' and a 'label'")
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise QuestionError(f"two choices are labeled {twice[0]}")
    return _mcq(record, stem, texts, [str(label) for label in labels], record.get("answerKey"))


def _openbookqa(record: Any) -> MCQ:
    _field(record, "fact1")
    return _arc(record)


def _medmcqa(record: Any) -> MCQ:
    question = _text(record, "question")
    _field(record, "opa")
    options = ["" if (option := record.get(f"op{letter}")) is None else str(option) for letter in "abcd"]
    key = _key(record.get("cop"))
    if key == "0":
        raise QuestionError("'cop' is 0, but counts from 1; if this file's counts from 0, add 1 to it in every row")
    if key == "-1":  # how the published test split says that it gives no key
        key = None
    return _mcq(record, question, _without_empty_end(options), NUMBERS, key)


_CORRECT, _INCORRECT = "correct answer", "incorrect answer"


def _gpqa(record: Any) -> MCQ:
    if isinstance(record, _Cells):
        raise QuestionError("the row has no names; give the file a header line")
    named = {str(name).strip().lower(): value for name, value in record.items()}
    question = _text(named, "question")
    wrong = [_text(named, name) for name in sorted(named) if name.startswith(_INCORRECT) and named[name] not in (None, "")]
    if not wrong:
        raise QuestionError("no 'Incorrect Answer 1'")
    # The right one stands first in the file. By a hash, every option is as likely to stand anywhere.
    right = _text(named, _CORRECT)

    def place(option: str) -> bytes:
        return hashlib.sha256(f"{question}\n{option}".encode(errors="replace")).digest()

    options = sorted([right, *wrong], key=place)
    key = LETTERS[options.index(right)]
    return _mcq({"id": named.get("record id")}, question, [option.strip() for option in options], LETTERS, key)


_QUESTION = ("question", "prompt", "input")
_ANSWER = ("answer", "target", "answerkey", "key")


def _csv(record: Any) -> MCQ:
    columns = [] if isinstance(record, _Cells) else _option_columns(record)
    if not columns:
        found = "the file has no header" if isinstance(record, _Cells) else f"the columns are {', '.join(map(str, record))}"
        raise QuestionError(f"no columns A, B, ... for the options; {found}")
    name = next((name for name in _QUESTION if record.get(name) is not None), "question")
    options = _without_empty_end(["" if record[column] is None else str(record[column]) for column in columns])
    key = next((record[name] for name in _ANSWER if record.get(name) not in (None, "")), None)
    return _mcq(record, _text(record, name), options, columns, key)


_READERS: dict[Format, Callable[[Any], MCQ]] = {
    Format.course_2024: _course_2024,
    Format.course_2025: _course_2025,
    Format.mmlu: _mmlu,
    Format.arc: _arc,
    Format.openbookqa: _openbookqa,
    Format.medmcqa: _medmcqa,
    Format.gpqa: _gpqa,
    Format.csv: _csv,
}


def _option_columns(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns that hold the options, in order: A, B, ... or 1, 2, ...; none where there are no two."""
    names = list(record)
    places = {label.upper(): name for label, name in zip(plain_labels(names), names, strict=True)}
    for series in (LETTERS, NUMBERS):
        if series[0] in places and series[1] in places:
            last = max(index for index, label in enumerate(series) if label in places)
            if missing := [label for label in series[:last] if label not in places]:
                raise QuestionError(f"there is a column {series[last]}, but no column {missing[0]}")
            return [places[label] for label in series[: last + 1]]
    return []


def _field(record: Any, name: str) -> Any:
    if isinstance(record, _Cells):
        raise QuestionError("the row has no names; give the file a header line")
    if record.get(name) is None:
        raise QuestionError(f"no '{name}'" + (f"; the keys are {', '.join(map(str, record))}" if record else ""))
    return record[name]


def _text(record: Any, name: str) -> str:
    value = _field(record, name)
    if not isinstance(value, str):
        raise QuestionError(f"'{name}' must be a text, not {type(value).__name__}")
    return value


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str | int | float) for value in values)


def _without_empty_end(options: Sequence[str]) -> list[str]:
    """Return `options` without the empty ones at the end: the questions of one file may have fewer than its columns."""
    kept = list(options)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def _mcq(record: Mapping[str, Any], question: str, options: Sequence[Any], labels: Sequence[str], key: Any) -> MCQ:
    label = _key(key)
    options = tuple(str(option) for option in options)
    mcq = MCQ(question.strip(), options, **_named(record))
    return mcq if label is None else replace(mcq, answer=letter_of_label(label, labels[: len(options)]))


def _key(key: Any) -> str | None:
    """Return a row's key as a label, None where it has none."""
    if key is None or (isinstance(key, str) and not key.strip()):
        return None
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise QuestionError(f"the key must be the label of an option, not {key!r}")
    return str(key)


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    subject = record.get("subject") if record.get("subject") not in (None, "") else record.get("subject_name")
    return {
        "id": None if record.get("id") in (None, "") else str(record["id"]),
        "subject": None if subject in (None, "") else str(subject),
    }
