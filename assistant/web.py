"""The page: a thin skin over Assistant and Course. Everything from a file or a user is shown as text, never as HTML."""

import html
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from assistant.answer import Answer, Assistant
from assistant.mcq import LETTERS, MCQ, parse_question
from assistant.model import LanguageModel, load_model
from assistant.quantization import DtypeName, Quantization
from ingest.course import Course, Hit, course_names
from ingest.embed import load_embedder
from ingest.errors import CourseError, UserError
from ingest.read import SUFFIXES
from ingest.sync import Progress, SyncReport

P = ParamSpec("P")
T = TypeVar("T")

_NO_COURSE = "(no course material)"
_EXAMPLE = "Which state does a process enter when it waits for a disk?\nA. Ready\nB. Blocked\nC. Running\nD. Terminated"
_UPLOAD_LIMIT = "200mb"
_CSS = """
.answer { display: flex; gap: 1.5rem; align-items: flex-start; flex-wrap: wrap; }
.answer .letter { font-size: 4.5rem; line-height: 1; font-weight: 700; color: var(--primary-600); min-width: 4rem;
  text-align: center; }
.dark .answer .letter { color: var(--primary-400); }
.answer .sure { font-size: .9rem; text-align: center; color: var(--body-text-color-subdued); }
.answer .options { flex: 1; min-width: 16rem; }
.option { display: grid; grid-template-columns: 1.5rem 1fr 3.5rem; gap: .5rem; padding: .3rem 0; }
.option.chosen { font-weight: 600; }
.option .share { text-align: right; font-variant-numeric: tabular-nums; }
.option .bar { grid-column: 2 / 4; height: .4rem; border-radius: .2rem; background: var(--border-color-primary); }
.option .bar i { display: block; height: 100%; border-radius: .2rem; background: var(--neutral-400); }
.option.chosen .bar i { background: var(--primary-500); }
.source { border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .7rem 1rem; margin: .6rem 0; }
.source .place { font-weight: 600; margin-bottom: .3rem; }
.source .heading { font-size: .9rem; color: var(--body-text-color-subdued); margin-bottom: .3rem; }
.source .passage { white-space: pre-wrap; overflow-wrap: anywhere; }
.remark { color: var(--body-text-color-subdued); font-size: .9rem; margin: .4rem 0; }
"""


class Page:
    """What the page's callbacks work on: one model, loaded once and shared by all visitors."""

    def __init__(self, load: Callable[[], LanguageModel]) -> None:
        self._load = load
        self._lm: LanguageModel | None = None
        self._loading = threading.Lock()

    def lm(self) -> LanguageModel:
        """Return the model, loaded by whoever comes first."""
        with self._loading:
            if self._lm is None:
                self._lm = self._load()
        return self._lm

    def ask(self, course: str | None, pasted: str | None, stem: str | None, options: str | None) -> str:
        """Answer the question in the fields, or the pasted one where the fields are empty; returns HTML.

        What is wrong with the question stays on the page in place of the answer, besides the toast.
        """
        pasted, stem, options = pasted or "", stem or "", options or ""
        try:
            mcq = _from_fields(stem, options) if stem.strip() or options.strip() else parse_question(pasted)
            chosen = None if course in (None, "", _NO_COURSE) else Course.open(str(course))
            return answer_html(Assistant(self.lm(), chosen).answer(mcq))
        except UserError as error:
            message = html.escape(str(error))
            gr.Warning(message)
            return f'<p role="alert">{message}</p>'


def _from_fields(stem: str, options: str) -> MCQ:
    lines = [line.strip() for line in options.splitlines() if line.strip()]
    label = re.compile(r"\(?([A-Ja-j]|10|[1-9])[.):]\)?\s+")  # lines pasted with their labels are taken without them
    if lines and all(label.match(line) for line in lines):
        lines = [label.sub("", line, count=1) for line in lines]
    return MCQ(stem.strip(), tuple(lines))


def to_fields(pasted: str | None) -> tuple[str, str]:
    """Parse the pasted question into the two fields, where a student can correct them."""
    mcq = parse_question(pasted or "")
    return mcq.question, "\n".join(mcq.options)


def answer_html(answer: Answer) -> str:
    """Return an answer as HTML, every text in it escaped."""
    rows = []
    for letter, option, probability in zip(answer.mcq.letters, answer.mcq.options, answer.probabilities, strict=True):
        rows.append(
            f'<div class="option{" chosen" if letter == answer.letter else ""}"><span>{letter}</span>'
            f'<span>{html.escape(option)}</span><span class="share">{probability:.0%}</span>'
            f'<span class="bar"><i style="width: {100 * probability:.1f}%"></i></span></div>'
        )
    remarks = "".join(f'<p class="remark">Note: {html.escape(warning)}</p>' for warning in answer.warnings)
    sources = "".join(_source_html(number, hit) for number, hit in enumerate(answer.sources, start=1))
    heading = "<h3>What this rests on</h3>" if sources else '<p class="remark">Answered without course material.</p>'
    return (
        f'<div class="answer"><div><div class="letter">{answer.letter}</div>'
        f'<div class="sure">{max(answer.probabilities):.0%} sure</div></div><div class="options">{"".join(rows)}</div></div>'
        f'{remarks}{heading}{sources}<p class="remark">{html.escape(answer.model)}, {answer.scoring} scoring, '
        f"{answer.seconds:.1f} s</p>"
    )


def _source_html(number: int, hit: Hit) -> str:
    place = html.escape(hit.passage.place)
    heading = f'<div class="heading">{html.escape(hit.passage.heading)}</div>' if hit.passage.heading else ""
    return (
        f'<div class="source"><div class="place">{number}. {place}</div>{heading}'
        f'<div class="passage">{html.escape(hit.passage.text)}</div></div>'
    )


def index_uploads(name: str, uploads: Sequence[str], on_progress: Callable[[Progress], None]) -> SyncReport:
    """Add the uploaded files to the folder that course `name` follows (a new course gets its own), then sync it.

    Without uploads the course is synced with its folder as it stands. Raises UserError on a file that is no course file.
    """
    name = name.strip()
    if not name:
        raise CourseError("name the course first")
    known = name in course_names()
    folder = Course.open(name).folder if known else Course(name).material
    if known and not folder.is_dir():
        raise CourseError(f"the folder of course '{name}' is not there any more: {folder}; bring it back, or index it anew")
    if not uploads and not known:
        raise CourseError(f"course '{name}' is new; choose files to upload")
    sources = {_safe_name(upload): Path(upload) for upload in uploads}
    if len(sources) < len(uploads):
        raise UserError("two of the files have the same name; rename one, or upload them one after the other")
    for target, source in sources.items():
        with source.open("rb") as file:
            start = file.read(1024)
        kind = Path(target).suffix.lower()
        if (kind == ".pdf" and b"%PDF-" not in start) or (kind in (".docx", ".pptx") and not start.startswith(b"PK")):
            raise UserError(f"{target} is not a {kind[1:].upper()}; choose PDF, DOCX, PPTX, HTML, Markdown or text files")
    folder.mkdir(parents=True, exist_ok=True)
    for target, source in sources.items():
        shutil.copyfile(source, folder / target)
    return Course(name).sync(folder, on_progress=on_progress)


def _safe_name(upload: str) -> str:
    """Return a file name that cannot leave its folder and ends as a course file's does, in .pdf where it does not."""
    name = re.sub(r"[^\w .()-]", "_", Path(upload.replace("\\", "/")).name).strip(". ")
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name or 'document'}.pdf"


def report_text(name: str, report: SyncReport) -> str:
    """Return what a sync did, in plain text."""
    counts = report.counts or "nothing"
    lines = [f"Course {name}: {counts}; {report.pages} pages read, {report.passages} passages in {report.seconds:.1f} s"]
    return "\n".join(lines + [f"Not indexed: {path}: {reason}" for path, reason in report.failed.items()])


def _documents(name: str) -> list[list[str | int]]:
    if name not in course_names():
        return []
    return [
        [record.path, record.pages, record.passages, record.detail or "indexed"]
        for record in Course.open(name, check=False).documents()
    ]


def _shown(function: Callable[P, T]) -> Callable[P, T]:
    """Turn a UserError into the toast that Gradio shows for gr.Error."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return wrapper


def create_app(load: Callable[[], LanguageModel] = load_model) -> gr.Blocks:
    """Build the page without starting it; `load` gives the model when the first question needs it."""
    page = Page(load)
    with gr.Blocks(title="mcqa", analytics_enabled=False, delete_cache=(3600, 3600)) as app:  # uploads were copied
        gr.Markdown(
            "# Course questions\nPaste a multiple-choice question: the letter, how sure it is, and the page it rests on."
        )
        with gr.Tab("Ask"):
            _ask_tab(app, page)
        with gr.Tab("Courses"):
            _courses_tab(app)
    return app


def _ask_tab(app: gr.Blocks, page: Page) -> None:
    course = gr.Dropdown(label="Course", choices=[_NO_COURSE], value=_NO_COURSE, elem_id="course")
    pasted = gr.Textbox(label="Question with its options", lines=6, placeholder=_EXAMPLE, elem_id="question")
    with gr.Accordion("Or fill in the fields", open=False):
        stem = gr.Textbox(label="Question", lines=2, elem_id="stem")
        options = gr.Textbox(label=f"Options, one to a line (2 to {len(LETTERS)})", lines=4, elem_id="options")
        with gr.Row():
            split = gr.Button("Fill from the pasted question", size="sm")
            clear = gr.Button("Clear the fields", size="sm")
    ask = gr.Button("Ask (Shift+Enter)", variant="primary", elem_id="ask")
    answer = gr.HTML(elem_id="answer", min_height=80)

    def choices() -> Any:
        names = course_names()
        return gr.Dropdown(choices=[*names, _NO_COURSE], value=names[0] if names else _NO_COURSE)

    app.load(choices, outputs=course, queue=False, api_visibility="private")
    course.focus(
        lambda: gr.Dropdown(choices=[*course_names(), _NO_COURSE]),
        outputs=course,
        queue=False,
        api_visibility="private",
    )
    gr.on(
        [ask.click, pasted.submit],
        page.ask,
        [course, pasted, stem, options],
        answer,
        concurrency_limit=1,
        concurrency_id="model",
        api_name="ask",
    )
    split.click(_shown(to_fields), pasted, [stem, options], queue=False, api_visibility="private")
    clear.click(lambda: ("", ""), outputs=[stem, options], queue=False, api_visibility="private")


def _courses_tab(app: gr.Blocks) -> None:
    name = gr.Dropdown(
        label="Course (choose one, or type a new name)", choices=[], allow_custom_value=True, elem_id="course-name"
    )
    uploads = gr.File(label="Files to add", file_count="multiple", file_types=sorted(SUFFIXES), elem_id="uploads")
    button = gr.Button("Index", variant="primary", elem_id="index")
    report = gr.Textbox(label="Result", lines=3, interactive=False, elem_id="report")
    documents = gr.Dataframe(
        headers=["Document", "Pages", "Passages", "State"],
        datatype="str",
        interactive=False,
        wrap=True,
        label="Documents",
    )

    def index(course: str | None, files: list[str] | None, progress: gr.Progress = gr.Progress()) -> tuple[str, Any]:  # noqa: B008
        def show(standing: Progress) -> None:
            left = f", {standing.seconds_left:.0f} s left" if standing.seconds_left is not None else ""
            name = f"{standing.document}: " if standing.document else ""
            progress(standing.fraction, desc=html.escape(name + standing.words + left))

        result = index_uploads(course or "", files or [], show)
        return report_text((course or "").strip(), result), gr.File(value=None)

    def names() -> Any:
        known = course_names()
        return gr.Dropdown(choices=known, value=known[0] if known else None)

    app.load(names, outputs=name, queue=False, api_visibility="private")
    name.change(lambda course: _documents(course or ""), name, documents, queue=False, api_visibility="private")
    # Its own queue: a question never waits for indexing.
    button.click(
        _shown(index), [name, uploads], [report, uploads], concurrency_limit=1, concurrency_id="index", api_name="index"
    ).success(lambda course: _documents((course or "").strip()), name, documents, queue=False, api_visibility="private")


def serve(
    *,
    host: str,
    port: int,
    model: str | None,
    quantize: Quantization = "none",
    dtype: DtypeName = "auto",
    open_browser: bool,
) -> None:
    """Open the page on `host`:`port` and serve it until interrupted.

    Raises ModelError where the model cannot be loaded, and UserError where the port is taken, before anyone sees the page.
    """
    print("Loading the models ...", flush=True)
    lm = load_model(model, quantize=quantize, dtype=dtype, on_status=lambda status: print(status + " ...", flush=True))
    print(lm.summary, flush=True)
    load_embedder()
    app = create_app(lambda: lm)
    try:
        app.queue(default_concurrency_limit=4).launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=open_browser,
            show_error=False,
            max_file_size=_UPLOAD_LIMIT,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=_CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
        )
        print(f"The page is at http://{host}:{port} (Ctrl+C stops it)", flush=True)
        app.block_thread()
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}, which something else may be using; choose another --port") from error
