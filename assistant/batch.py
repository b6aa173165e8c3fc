"""A file of questions → a file of answers in the same order, resumable after a stop at any point."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from assistant.answer import TOGETHER, Answer, Assistant
from assistant.formats import Row, read_mcqs
from assistant.mcq import LETTERS, MCQ
from ingest.errors import UserError

BLOCK = 64  # rows held in memory at a time, and that the system may still have to write when the machine loses power


@dataclass(slots=True)
class BatchReport:
    """What a batch came to: rows in the file, rows taken over from an earlier run, bad rows by line, and accuracy counts."""

    rows: int = 0
    resumed: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    keyed: int = 0
    correct: int = 0

    def add(self, record: dict[str, Any]) -> None:
        """Count one line of the result."""
        self.rows += 1
        if "error" in record:
            self.bad[record["line"]] = record["error"]
        elif record["key"] is not None:
            self.keyed += 1
            self.correct += record["key"] == record["letter"]


def check_output(source: Path, target: Path, *, resume: bool = False, force: bool = False) -> None:
    """Raise UserError where `run_batch` would not write to `target`, before anything slow is done."""
    if target.suffix.lower() not in _WRITERS:
        raise UserError(f"{target}: answers are written as JSONL or CSV; name the output file .jsonl or .csv")
    if target.is_dir():
        raise UserError(f"{target} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist; create it, or choose another output file")
    if source.resolve() == target.resolve():
        raise UserError(f"{target} is the question file itself; choose another output file")
    if force:
        return
    if _partial(target).exists():
        if not resume:
            raise UserError(
                f"{_partial(target)} holds the answers of a run that was stopped; "
                "continue that run with --resume, or start over with --force"
            )
    elif target.exists():
        raise UserError(f"{target} already exists; choose another output file, or overwrite it with --force")


def run_batch(
    assistant: Assistant,
    source: Path,
    target: Path,
    *,
    format: str | None = None,  # noqa: A002 -- as in read_mcqs
    resume: bool = False,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BatchReport:
    """Answer every question of `source` into `target`, a row each in order; a bad row gets one that says why.

    The suffix of `target` says what is written: `.jsonl`, `Answer.to_json` with `line`, or `{"line", "error"}`; `.csv`, a
    table. Results are appended to `TARGET.partial` as they come; when all are there it becomes `target`. `resume` continues
    a run that was stopped; with other settings, another model, course state or input that is refused. But for `seconds`,
    which every row keeps from the run that answered it, the result is that of a run without a stop. `force` starts over
    and overwrites. `on_progress` is called with (rows done, rows in all). Raises UserError.
    """
    check_output(source, target, resume=resume, force=force)
    total = sum(1 for _ in read_mcqs(source, format))
    if total == 0:
        raise UserError(f"{source} holds no question")
    partial = _partial(target)
    settings = _settings(assistant, source, format)
    report = BatchReport()
    try:
        with _held(target):
            check_output(source, target, resume=resume, force=force)  # another run may have ended since
            if force:
                partial.unlink(missing_ok=True)
            with _open_partial(partial, settings, report) as file:
                report.resumed = report.rows
                on_progress(report.rows, total)
                # Which questions are read together moves the last digit of 16-bit numbers: those that were together when the
                # run was stopped are so again, and what is there already is left out.
                known = report.resumed % TOGETHER
                rows = islice(read_mcqs(source, format), report.resumed - known, None)
                while report.rows < total and (block := list(islice(rows, BLOCK))):
                    for record in islice(_answers(assistant, block), known, None):
                        file.write(json.dumps(record, ensure_ascii=False) + "\n")
                        file.flush()
                        report.add(record)
                        on_progress(report.rows, total)
                    known = 0
                    os.fsync(file.fileno())
            if report.rows != total or _digest(source) != settings["input"]:
                raise UserError(f"{source} was changed while it was answered; start over with --force")
            _finish(partial, target)
    except OSError as error:
        raise UserError(f"{error.filename or target} cannot be written ({error.strerror})") from error
    return report


def sample(source: Path, count: int, format: str | None = None) -> list[MCQ]:  # noqa: A002 -- as in read_mcqs
    """Return about `count` questions from all parts of a file, always the same ones."""
    step = max(1, sum(1 for _ in read_mcqs(source, format)) // max(1, count))
    return [row.mcq for row in islice(read_mcqs(source, format), 0, None, step) if row.mcq is not None][:count]


def _answers(assistant: Assistant, block: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the result of each row of `block`, in order; TOGETHER are read at a time, which is what a kill costs at most."""
    for start in range(0, len(block), TOGETHER):
        rows = block[start : start + TOGETHER]
        answers = iter(assistant.answer_many([row.mcq for row in rows if row.mcq is not None]))
        for row in rows:
            answer: Answer | UserError = UserError(row.error) if row.mcq is None else next(answers)
            # A question longer than the model's window, say, costs its row and not the batch.
            result = {"error": str(answer)} if isinstance(answer, UserError) else answer.to_json()
            yield {"line": row.line, **result}


def _settings(assistant: Assistant, source: Path, layout: str | None) -> dict[str, Any]:
    """Return everything that the answers depend on."""
    return {
        "input": _digest(source),
        "format": layout,
        "model": assistant.lm.name,
        "card": assistant.lm.card.model_dump(mode="json"),
        "course": assistant.course and [assistant.course.name, assistant.course.fingerprint()],
        "scoring": assistant.scoring,
        "passages": assistant.passages,
        "permute": assistant.permute,
        "priors": {str(n): list(priors) for n, priors in sorted(assistant.priors.items())},
        "quantize": assistant.lm.quantization,
        "dtype": str(assistant.lm.dtype),
    }


def answers_so_far(target: Path) -> list[dict[str, Any]]:
    """Return the rows that a run has written for `target` (.jsonl) by now, whether it has ended or was stopped."""
    if target.is_file():
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    partial = _partial(target)
    if not partial.is_file():
        return []
    with partial.open("rb") as file:
        return [record for line in islice(file, 1, None) if (record := _whole(line)) is not None]


def write_table(records: Sequence[dict[str, Any]], target: Path) -> None:
    """Write answers, as `answers_so_far` returns them, to a CSV file, safe to open in a spreadsheet."""
    with target.open("w", encoding="utf-8", errors="backslashreplace", newline="") as new:
        _write_records(lambda: records, new)


def _digest(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Keep a second run off `target` meanwhile: two that append to one file would repeat rows."""
    from filelock import FileLock, Timeout

    path = target.with_name(f".{target.name}.lock")
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):  # some systems keep an open file
                    path.unlink()
    except Timeout as error:
        raise UserError(f"{target} is being written by another run; wait for it, or choose another output file") from error


def _open_partial(partial: Path, settings: dict[str, Any], report: BatchReport) -> TextIO:
    """Open `partial` for appending, its finished lines counted into `report`.

    A line that a kill cut or a power failure spoiled is dropped with all that follow: those rows are answered again.
    """
    good = 0
    if partial.exists():
        with partial.open("rb") as old:
            for number, line in enumerate(old):
                record = _whole(line)
                if record is None:
                    break
                if number == 0 and record.get("settings") != settings:
                    raise UserError(
                        f"{partial} was begun with another {_difference(record.get('settings'), settings)}; "
                        "use the same again, another output file, or start over with --force"
                    )
                if number:
                    report.add(record)
                good += len(line)
        os.truncate(partial, good)
    # What is no valid text is written as JSON's own escapes, "\udcff".
    file = partial.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
    if not good:
        file.write(json.dumps({"settings": settings}) + "\n")
        file.flush()
    return file


def _whole(line: bytes) -> dict[str, Any] | None:
    """Return the record on a line of a partial file, None where the line is not as it was written."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _difference(old: Any, new: dict[str, Any]) -> str:
    names = [name for name in new if not isinstance(old, dict) or old.get(name) != new[name]]
    return " and ".join(names)


def _finish(partial: Path, target: Path) -> None:
    """Write the results to `target`, atomically, and delete `partial`."""
    scratch = target.with_name(target.name + ".tmp")
    with scratch.open("w", encoding="utf-8", errors="backslashreplace", newline="") as new:
        _WRITERS[target.suffix.lower()](partial, new)
        new.flush()
        os.fsync(new.fileno())
    scratch.replace(target)
    partial.unlink()


def _results(partial: Path) -> Iterator[str]:
    with partial.open(encoding="utf-8", newline="\n") as lines:
        yield from islice(lines, 1, None)


def _write_jsonl(partial: Path, new: TextIO) -> None:
    new.writelines(_results(partial))


def _write_csv(partial: Path, new: TextIO) -> None:
    _write_records(lambda: map(json.loads, _results(partial)), new)


def _write_records(records: Callable[[], Iterable[dict[str, Any]]], new: TextIO) -> None:
    """Write a table: a column p_A, p_B, ... for every letter that a question has; cells that do not apply stay empty.

    `records` is called twice, so that a large file need not be held in memory.
    """
    most = max((len(record.get("probabilities", ())) for record in records()), default=0)
    shares = [f"p_{letter}" for letter in LETTERS[:most]]
    columns = [
        "line", "id", "question", "letter", *shares, "key", "correct", "letter_mass", "sources", "seconds", "error",
    ]  # fmt: skip
    table = csv.DictWriter(new, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for found in records():
        record = dict(found)
        if "error" not in record:
            record |= {f"p_{letter}": share for letter, share in record["probabilities"].items()}
            record["correct"] = None if record["key"] is None else int(record["key"] == record["letter"])
            record["sources"] = "; ".join(_place(source) for source in record["sources"])
        table.writerow({name: as_text(value) for name, value in record.items()})


def _place(source: dict[str, Any]) -> str:
    return ", ".join(part for part in (source["document"], source["pages"]) if part)


def as_text(value: Any) -> Any:
    """Return `value` such that a spreadsheet takes no text for a formula: an apostrophe goes before what would begin one."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_WRITERS: dict[str, Callable[[Path, TextIO], None]] = {".jsonl": _write_jsonl, ".csv": _write_csv}
