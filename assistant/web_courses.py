"""The tab Courses: what they hold, adding files, and keeping them in order. Staff only."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.web_look import empty, notice, quiet, table, text
from assistant.web_parts import QUICKLY
from assistant.web_service import Service, shown
from ingest.chunk import SplitSettings
from ingest.course import Course, course_names
from ingest.errors import CourseError, UserError
from ingest.read import SUFFIXES
from ingest.sync import Progress, SyncReport

UPLOAD_LIMIT = "200mb"  # a file
_MOST_FILES = 100  # in one upload
_MOST_BYTES = 1 << 30  # of one upload
_SIZES = [("Short: points to the exact place", 80), ("Standard", 120), ("Long: more context around a place", 200)]
_ARCHIVES = (".docx", ".pptx")
_STATES = {"indexed": "Ready", "damaged": "Cannot be read", "encrypted": "Needs a password", "no text": "No text in it",
           "stopped": "Took too long to read", "unsupported": "Kind not supported"}  # fmt: skip


def index_uploads(
    name: str,
    uploads: Sequence[str],
    on_progress: Callable[[Progress], None],
    *,
    passage_tokens: int | None = None,
    retry: bool = False,
) -> SyncReport:
    """Add the uploaded files to the folder that course `name` follows (a new course gets its own), then sync it.

    Without uploads the course is synced with its folder as it stands; `retry` reads again what could not be read. Another
    `passage_tokens` than the course has makes its index anew. Raises UserError on a file that is no course file.
    """
    name = name.strip()
    if not name:
        raise CourseError("name the course first")
    known = name in course_names()
    folder = Course.open(name, check=False).folder if known else Course(name).material
    if known and not folder.is_dir():
        raise CourseError(f"the folder of course '{name}' is not there any more: {folder}; bring it back, or index it anew")
    if not uploads and not known:
        raise CourseError(f"course '{name}' is new; choose files to upload")
    sources = _checked(uploads)
    folder.mkdir(parents=True, exist_ok=True)
    for target, source in sources.items():
        shutil.copyfile(source, folder / target)
    settings = None
    if passage_tokens is not None and (not known or Course(name).settings.passage_tokens != passage_tokens):
        settings = SplitSettings(passage_tokens=passage_tokens, overlap_tokens=passage_tokens // 5)
    course = Course(name, settings=settings)
    return course.sync(folder, rebuild=known and settings is not None, retry=retry, on_progress=on_progress)


def _checked(uploads: Sequence[str]) -> dict[str, Path]:
    """Return the uploads by the names they are stored under; raises UserError on what is no course file, by its first bytes."""
    if len(uploads) > _MOST_FILES:
        raise UserError(f"{len(uploads)} files are too many at once; upload at most {_MOST_FILES}")
    sources = {_safe_name(upload): Path(upload) for upload in uploads}
    if len(sources) < len(uploads):
        raise UserError("two of the files have the same name; rename one, or upload them one after the other")
    if sum(source.stat().st_size for source in sources.values()) > _MOST_BYTES:
        raise UserError(f"these files are more than {_MOST_BYTES >> 20} MB together; upload them in parts")
    for target, source in sources.items():
        with source.open("rb") as file:
            start = file.read(1024)
        kind = Path(target).suffix.lower()
        fits = b"%PDF-" in start if kind == ".pdf" else start.startswith(b"PK") if kind in _ARCHIVES else b"\0" not in start
        if not fits:
            raise UserError(f"{target} is not a {kind[1:].upper()}; choose PDF, DOCX, PPTX, HTML, Markdown or text files")
    return sources


def _safe_name(upload: str) -> str:
    """Return a file name that cannot leave its folder and ends as a course file's does, in .pdf where it does not."""
    name = re.sub(r"[^\w .()-]", "_", Path(upload.replace("\\", "/")).name).strip(". ")
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name or 'document'}.pdf"


def report_html(name: str, report: SyncReport) -> str:
    """Say what a sync did, the files that could not be read by name."""
    words = f"{name}: {report.counts or 'nothing to do'}. {report.pages} pages read, {report.passages} passages made "
    failed = [notice(f"{path} could not be read: {reason}", "warn") for path, reason in report.failed.items()]
    return notice(f"{words}in {report.seconds:.1f} s.", "good") + "".join(failed)


def overview_html() -> str:
    """Return all courses as a table."""
    rows = []
    for name in course_names():
        try:
            documents = Course.open(name, check=False).documents()
        except UserError as error:
            rows.append([name, 0, 0, 0, str(error)])
            continue
        ready = [document for document in documents if document.status == "indexed"]
        bad = len(documents) - len(ready)
        problems = f"{bad} file{'s' if bad > 1 else ''} could not be read" if bad else "none"
        pages, passages = sum(document.pages for document in ready), sum(document.passages for document in ready)
        rows.append([name, len(ready), pages, passages, problems])
    if not rows:
        return empty("No courses yet", "Type a name, drop your course files below and press Add files.")
    return table(["Course", "Documents", "Pages", "Passages", "Problems"], rows, label="Courses")


def documents_html(name: str | None) -> str:
    """Return the documents of a course as a table, with what could not be read and why."""
    if not name or name not in course_names():
        return quiet("A new course: add its files above." if name else "Choose a course to see its documents.")
    course = Course.open(name, check=False)
    rows = [
        [
            record.path,
            record.pages,
            record.passages,
            _STATES.get(record.status, record.status) + (f": {record.detail}" if record.detail else ""),
        ]
        for record in course.documents()
    ]
    size = course.settings.passage_tokens
    return table(["Document", "Pages", "Passages", "State"], rows, label=f"Documents of {name}") + quiet(
        f"Files in {course.folder}. Passages of up to {size} tokens."
    )


def rename(name: str | None, new: str | None) -> str:
    """Give a course another name; returns what to say about it."""
    renamed = Course.open(name or "", check=False).rename((new or "").strip())
    return notice(f"{name} is now called {renamed.name}.", "good")


def remove(name: str | None, with_files: bool) -> str:
    """Delete a course's index, and the files uploaded to it if that is wanted; returns what to say about it."""
    course = Course.open(name or "", check=False)
    folder, own = course.folder, course.material
    course.remove()
    if with_files and folder == own:
        shutil.rmtree(own, ignore_errors=True)
        if own.parent.is_dir() and not any(own.parent.iterdir()):
            own.parent.rmdir()
        return notice(f"{name} and its files are removed.", "good")
    return notice(f"{name} is removed. Its files stay in {folder}.", "good")


def _standing_words(standing: Progress) -> str:
    left = f", about {standing.seconds_left:.0f} s left" if standing.seconds_left is not None else ""
    return f"{standing.document}: {standing.words}{left}" if standing.document else standing.words + left


def courses_tab(app: gr.Blocks, service: Service) -> None:
    """Build the tab."""
    overview = gr.HTML(elem_id="overview")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            name = gr.Dropdown(
                label="Course (choose one, or type a new name)", choices=[], allow_custom_value=True, elem_id="course-name"
            )
            uploads = gr.File(
                label="Drop files here: PDF, DOCX, PPTX, HTML, Markdown, text",
                file_count="multiple", file_types=sorted(SUFFIXES), elem_id="uploads", height=170,
            )  # fmt: skip
            with gr.Row():
                add = gr.Button("Add files", variant="primary", elem_id="index")
                again = gr.Button("Read again", elem_id="again")
            with gr.Accordion("Advanced", open=False):
                size = gr.Dropdown(
                    label="Length of a passage", info="Another length makes the course's index anew.",
                    choices=[("As it is", 0), *_SIZES], value=0, elem_id="passage-size",
                )  # fmt: skip
            with gr.Accordion("Rename or remove this course", open=False, elem_id="care"):
                new = gr.Textbox(label="New name", max_lines=1, elem_id="new-name")
                renaming = gr.Button("Rename", size="sm", elem_id="rename")
                removing = gr.Button("Remove …", size="sm", variant="stop", elem_id="remove")
                with gr.Column(visible=False) as confirming:
                    sure = gr.HTML()
                    files_too = gr.Checkbox(label="Also delete the files that were uploaded", value=False)
                    with gr.Row():
                        yes = gr.Button("Yes, remove it", size="sm", variant="stop", elem_id="remove-yes")
                        no = gr.Button("Keep it", size="sm", elem_id="remove-no")
        with gr.Column(scale=7, min_width=320):
            report = gr.HTML(elem_id="report", min_height=60)
            documents = gr.HTML(elem_id="documents")

    # Its own queue: a question never waits for indexing.
    slowly: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "index", "show_progress_on": [report]}

    def index(retry: bool) -> Callable[..., Any]:
        def run(
            course: str | None,
            files: list[str] | None,
            tokens: int | None,
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 -- how Gradio hands it over
        ) -> tuple[str, Any]:
            service.require_staff(request)

            def show(standing: Progress) -> None:
                progress(standing.fraction, desc=text(_standing_words(standing)))

            done = index_uploads(course or "", files or [], show, passage_tokens=tokens or None, retry=retry)
            return report_html((course or "").strip(), done), gr.File(value=None)

        return run

    def names(now: str | None, request: gr.Request) -> tuple[Any, str, str]:
        service.require_staff(request)
        known = course_names()
        now = (now or "").strip()
        chosen = now if now in known else known[0] if known else None
        return gr.Dropdown(choices=known, value=chosen), overview_html(), documents_html(chosen)

    def look(course: str | None, request: gr.Request) -> str:
        service.require_staff(request)
        return documents_html((course or "").strip())

    listed = [name, overview, documents]

    def on_load(request: gr.Request) -> tuple[Any, ...]:
        return names(None, request) if service.is_staff(request) else (gr.skip(), gr.skip(), gr.skip())

    app.load(on_load, outputs=listed, **QUICKLY)
    name.change(shown(look), name, documents, **QUICKLY)
    given = [name, uploads, size]
    for button, retry, api in ((add, False, "index"), (again, True, "reindex")):
        done = button.click(shown(index(retry)), given, [report, uploads], api_name=api, **slowly)
        done.success(shown(names), name, listed, **QUICKLY)

    def do_rename(course: str | None, to: str | None, request: gr.Request) -> tuple[str, Any, str]:
        service.require_staff(request)
        said = rename(course, to)
        return said, gr.Dropdown(choices=course_names(), value=(to or "").strip()), ""

    def ask_sure(course: str | None) -> tuple[Any, str]:
        if not course or course not in course_names():
            raise CourseError("choose a course first")
        return gr.Column(visible=True), notice(f"Remove {course}? Nobody can ask about it any more.", "warn")

    def do_remove(course: str | None, with_files: bool, request: gr.Request) -> tuple[str, Any]:
        service.require_staff(request)
        return remove(course, bool(with_files)), gr.Column(visible=False)

    renaming.click(shown(do_rename), [name, new], [report, name, new], api_name="rename", **slowly).success(
        shown(names), name, listed, **QUICKLY
    )
    removing.click(shown(ask_sure), name, [confirming, sure], **QUICKLY)
    no.click(lambda: gr.Column(visible=False), outputs=confirming, **QUICKLY)
    yes.click(shown(do_remove), [name, files_too], [report, confirming], api_name="remove", **slowly).success(
        shown(names), name, listed, **QUICKLY
    )
