"""A file of questions → a file of answers in the same order, resumable after a stop at any point."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from assistant.answer import Assistant
from assistant.formats import Row, read_mcqs
from ingest.errors import UserError


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


def run_batch(
    assistant: Assistant,
    source: Path,
    target: Path,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BatchReport:
    """Answer every question of `source` into `target` (JSONL, one line a row, in order); a bad row gets a line with `error`.

    Results are appended to `TARGET.partial` as they come; when all are there it becomes `target`. A run that was stopped
    is continued by the same call; one with other settings, another model, course state or input is refused. `force`
    starts over and overwrites. `on_progress` is called with (rows done, rows in all). Raises UserError.
    """
    if target.suffix.lower() != ".jsonl":
        raise UserError(f"{target}: answers are written as JSONL; name the output file .jsonl")
    if source.resolve() == target.resolve():
        raise UserError(f"{target} is the question file itself; choose another output file")
    partial = target.with_name(target.name + ".partial")
    if target.exists() and not force:
        raise UserError(f"{target} already exists; choose another output file, or overwrite it with --force")
    total = sum(1 for _ in read_mcqs(source))
    if total == 0:
        raise UserError(f"{source} holds no question")
    settings = _settings(assistant, source)
    if force:
        partial.unlink(missing_ok=True)
    report = BatchReport()
    try:
        with _open_partial(partial, settings, report) as file:
            report.resumed = report.rows
            on_progress(report.rows, total)
            for index, row in enumerate(read_mcqs(source)):
                if index < report.resumed:
                    continue
                record = _answer(assistant, row)
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                report.add(record)
                on_progress(report.rows, total)
            os.fsync(file.fileno())
        _finish(partial, target)
    except OSError as error:
        raise UserError(f"{error.filename or target} cannot be written ({error.strerror})") from error
    return report


def _answer(assistant: Assistant, row: Row) -> dict[str, Any]:
    if row.mcq is None:
        return {"line": row.line, "error": row.error}
    try:
        return {"line": row.line, **assistant.answer(row.mcq).to_json()}
    except UserError as error:  # a question longer than the model's window, say: its row, not the batch
        return {"line": row.line, "error": str(error)}


def _settings(assistant: Assistant, source: Path) -> dict[str, Any]:
    """Return everything that the answers depend on."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "input": digest,
        "model": assistant.lm.name,
        "card": assistant.lm.card.model_dump(),
        "course": assistant.course and [assistant.course.name, assistant.course.fingerprint()],
        "scoring": assistant.scoring,
        "passages": assistant.passages,
    }


def _open_partial(partial: Path, settings: dict[str, Any], report: BatchReport) -> TextIO:
    """Open `partial` for appending, its finished lines counted into `report` and a line cut by a kill dropped."""
    if not partial.exists():
        file = partial.open("w", encoding="utf-8")
        file.write(json.dumps({"settings": settings}) + "\n")
        return file
    good = 0
    with partial.open("rb") as old:
        for number, line in enumerate(old):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{partial} line {number + 1} is damaged; delete it, or start over with --force") from error
            if number == 0 and record.get("settings") != settings:
                raise UserError(
                    f"{partial} was begun with another {_difference(record.get('settings'), settings)}; "
                    "use the same again, another output file, or start over with --force"
                )
            if number:
                report.add(record)
            good += len(line)
    if not good:  # killed before the first line was whole
        partial.unlink()
        return _open_partial(partial, settings, report)
    os.truncate(partial, good)
    return partial.open("a", encoding="utf-8")


def _difference(old: Any, new: dict[str, Any]) -> str:
    names = [name for name in new if not isinstance(old, dict) or old.get(name) != new[name]]
    return " and ".join(names)


def _finish(partial: Path, target: Path) -> None:
    """Copy the results without their heading line to `target`, atomically, and delete `partial`."""
    scratch = target.with_name(target.name + ".tmp")
    with partial.open("rb") as old, scratch.open("wb") as new:
        next(old)
        for line in old:
            new.write(line)
        new.flush()
        os.fsync(new.fileno())
    scratch.replace(target)
    partial.unlink()
