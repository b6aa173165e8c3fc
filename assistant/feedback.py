"""Students' corrections, kept as JSON lines on this machine."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assistant.answer import Answer
from ingest.errors import UserError
from ingest.home import ensure_folder, home


def feedback_file() -> Path:
    """Return where corrections are kept."""
    return home() / "feedback.jsonl"


def correction(answer: Answer, letter: str, *, course: str | None, asked: str) -> dict[str, Any]:
    """Return the record of a correction: `letter` is what the student holds right for the question of `answer`.

    `asked` tells this answer from every other, so that who corrects a correction counts once. Nothing says who it was.
    """
    passages: Sequence[dict[str, Any]] = [
        {"document": hit.passage.document, "page": hit.passage.page_first, "text": hit.passage.text} for hit in answer.sources
    ]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": asked,
        "course": course,
        "question": answer.mcq.question,
        "options": list(answer.mcq.options),
        "letter": letter,
        "assistant": answer.letter,
        "probabilities": [round(share, 6) for share in answer.probabilities],
        "passages": passages,
        "model": answer.model,
        "scoring": answer.scoring,
    }


def record(entry: dict[str, Any], path: Path | None = None) -> None:
    """Append a record to the corrections, whoever else appends at the same time; raises UserError where that is not allowed."""
    path = path or feedback_file()
    line = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
    ensure_folder(path.parent)
    from filelock import FileLock

    try:
        # Appending is atomic on local disks only, and a full disk may cut a line; the lock holds everywhere.
        with FileLock(path.with_name(f".{path.name}.lock")), path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); check the disk's space and permissions") from error
