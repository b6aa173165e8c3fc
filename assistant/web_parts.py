"""What several tabs need: the choice of a course, uploaded question files, folders for downloads, how quick callbacks run."""

import os
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from ingest.course import course_names
from ingest.errors import UserError

NO_COURSE = "No course material"
QUICKLY: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}  # for what takes no time
_LARGEST = 20 << 20  # bytes of a question file


def course_choices(now: str | None = None) -> Any:
    """Return what there is to choose: the courses, and none of them; one that is chosen `now` stays, if it is there."""
    known = [*course_names(), NO_COURSE]
    return gr.Dropdown(choices=known, value=now if now in known and now != NO_COURSE else known[0])


def chosen_course(course: str | None) -> str | None:
    """Return the name of the chosen course, None where none is."""
    return None if course in (None, "", NO_COURSE) else course


def question_file(path: str | None) -> Path:
    """Return an uploaded file of questions after a first look at it; raises UserError where it can be none."""
    if not path:
        raise UserError("choose a question file first: .jsonl, .json or .csv")
    file = Path(path)
    if file.stat().st_size > _LARGEST:
        raise UserError(f"{file.name} is larger than {_LARGEST >> 20} MB; upload it in parts, or use: mcqa batch")
    with file.open("rb") as opened:
        if b"\0" in opened.read(4096):
            raise UserError(f"{file.name} is no text; choose a .jsonl, .json or .csv file, saved as UTF-8")
    return file


def download_folder() -> Path:
    """Return a new folder from which the page may hand out files."""
    return Path(tempfile.mkdtemp(prefix="mcqa-", dir=os.environ.get("GRADIO_TEMP_DIR")))
