"""The tab Batch: a file of questions answered, looked through and taken home. Staff only."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.batch import answers_so_far, run_batch, write_table
from assistant.formats import counts_entries, read_mcqs
from assistant.stats import percent_with_interval, wilson
from assistant.web_look import columns, empty, notice, quiet, table, text, tiles
from assistant.web_parts import NO_COURSE, QUICKLY, chosen_course, course_choices, download_folder, question_file
from assistant.web_service import Service, shown
from ingest.errors import UserError

FILTERS = ("All", "Right", "Wrong", "Unsure", "Not answered")
_UNSURE = 0.5  # an answer below it is unsure
_BINS = ((0.0, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))
_SHOWN = 8  # questions of a file that the preview shows
_ROWS = 300  # rows of the table


class StoppedError(UserError):
    """The visitor stopped the run."""


@dataclass(slots=True)
class Run:
    """One visitor's file: where its answers go, and whether the run was told to stop. It can be copied, as Gradio does once."""

    stop: list[bool] = field(default_factory=list)
    target: str = ""
    records: Sequence[dict[str, Any]] = ()


def preview_html(path: str | None) -> str:
    """Say what was understood of a question file, and which rows are bad and why."""
    if not path:
        return empty("Nothing uploaded yet", "Choose a file of questions: .jsonl, .json or .csv.")
    file = question_file(path)
    good: list[list[object]] = []
    bad: list[list[object]] = []
    total = keyed = 0
    for row in read_mcqs(file):
        total += 1
        if row.mcq is None:
            bad.append([row.line, row.error])
        else:
            keyed += row.mcq.answer is not None
            if len(good) < _SHOWN:
                options = " · ".join(f"{a}. {o}" for a, o in zip(row.mcq.letters, row.mcq.options, strict=True))
                good.append([row.line, row.mcq.question, options, row.mcq.answer or "–"])
    if not total:
        raise UserError(f"{file.name} holds no question")
    place = "Entry" if counts_entries(file) else "Line"
    made = tiles([(str(total - len(bad)), "questions understood"), (str(keyed), "with a key"), (str(len(bad)), "bad rows")])
    if bad:
        made += '<h2 class="part">Rows that cannot be used</h2>' + table([place, "Why"], bad[:_ROWS], label="Bad rows")
    made += f'<h2 class="part">The first {len(good)} questions</h2>' if good else ""
    return made + (table([place, "Question", "Options", "Key"], good, label="What was understood") if good else "")


def summary_html(records: Sequence[dict[str, Any]], total: int | None = None) -> str:
    """Return the accuracy with its interval and a chart of it by confidence, where keys exist."""
    answered = [record for record in records if "error" not in record]
    figures = [(str(len(answered)), "answered"), (str(len(records) - len(answered)), "not answered")]
    keyed = [record for record in answered if record["key"] is not None]
    right = sum(record["key"] == record["letter"] for record in keyed)
    made = ""
    if keyed:
        low, high = wilson(right, len(keyed))
        figures += [(f"{right / len(keyed):.0%}", f"right; 95 % interval {low:.0%} to {high:.0%}")]
        bars = []
        for start, end in _BINS:
            inside = [r for r in keyed if start <= _sure(r) < end or (end == 1.0 and _sure(r) == 1.0)]
            if inside:
                hits = sum(r["key"] == r["letter"] for r in inside)
                share = hits / len(inside)
                bars.append((f"{start:.0%} to {end:.0%} sure", share, f"{share:.0%} ({hits} of {len(inside)})"))
        made = '<h2 class="part">How often it is right, by how sure it is</h2>' + columns(bars, label="Right answers")
        made += quiet(f"Accuracy {percent_with_interval(right, len(keyed))}.")
    stopped = notice(f"Stopped after {len(records)} of {total} rows. Run goes on from there.", "warn") if total else ""
    return stopped + tiles(figures) + made


def rows_html(records: Sequence[dict[str, Any]], which: str) -> str:
    """Return the answers that a filter lets pass, as a table."""
    kept = [record for record in records if _passes(record, which)]
    if not kept:
        return quiet("No row is of this kind.") if records else ""
    rows = []
    for record in kept[:_ROWS]:
        if "error" in record:
            rows.append([record["line"], record["error"], "–", "–", "–", "–"])
        else:
            places = [", ".join(filter(None, (one["document"], one["pages"]))) for one in record["sources"][:1]]
            key = record["key"] or "–"
            rows.append(
                [
                    record["line"],
                    record["question"],
                    record["letter"],
                    f"{_sure(record):.0%}",
                    key,
                    places[0] if places else "–",
                ]
            )
    more = quiet(f"The first {_ROWS} of {len(kept)} rows; the files below hold all.") if len(kept) > _ROWS else ""
    return more + table(["Row", "Question", "Answer", "Sure", "Key", "Source"], rows, label=f"Answers: {which}")


def _sure(record: dict[str, Any]) -> float:
    return float(max(record["probabilities"].values()))


def _passes(record: dict[str, Any], which: str) -> bool:
    if which == "All":
        return True
    if "error" in record or which == "Not answered":
        return "error" in record and which == "Not answered"
    if which == "Unsure":
        return _sure(record) < _UNSURE
    return record["key"] is not None and (record["key"] == record["letter"]) == (which == "Right")


def answer_file(
    service: Service, run: Run, path: str | None, course: str | None, on_progress: Callable[[int, int], None]
) -> int | None:
    """Answer a file into `run`; returns None when all is done, the number of rows where it was stopped on the way.

    The same file with the same course and model goes on where it was stopped. Raises UserError.
    """
    source = question_file(path)
    assistant = service.patient(chosen_course(course))
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state = f"{digest} {assistant.lm.name} {assistant.course and (assistant.course.name, assistant.course.fingerprint())}"
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    folder = Path(run.target).parent if run.target else download_folder()
    target = folder / f"answers-{key}.jsonl"
    run.target = str(target)
    run.stop.clear()
    total = 0

    def tell(done: int, of: int) -> None:
        nonlocal total
        total = of
        on_progress(done, of)
        if run.stop:
            raise StoppedError("stopped")

    try:
        if not target.exists():
            run_batch(assistant, source, target, resume=True, on_progress=tell)
    except StoppedError:
        run.records = answers_so_far(target)
        return total
    run.records = answers_so_far(target)
    return None


def downloads(run: Run) -> list[str]:
    """Write the answers of a run as JSONL and as CSV; returns the paths."""
    target = Path(run.target)
    table_file, lines = target.with_name("answers.csv"), target.with_name("answers.jsonl")
    write_table(run.records, table_file)
    lines.write_bytes(target.read_bytes() if target.is_file() else b"")
    return [str(lines), str(table_file)] if target.is_file() else [str(table_file)]


def batch_tab(app: gr.Blocks, service: Service) -> None:
    """Build the tab."""
    run = gr.State(Run(), time_to_live=6 * 3600)
    # A stop must reach a run that is at work: Gradio hands each event the same state, but not before the first has ended.
    stops: dict[str, list[bool]] = {}
    lock = threading.Lock()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = gr.File(
                label="Question file (.jsonl, .json or .csv)", file_types=[".jsonl", ".json", ".csv"], height=150,
                elem_id="batch-file",
            )  # fmt: skip
            course = gr.Dropdown(label="Course", choices=[NO_COURSE], value=NO_COURSE, elem_id="batch-course")
            with gr.Row():
                go = gr.Button("Run", variant="primary", elem_id="batch-run")
                stop = gr.Button("Stop", elem_id="batch-stop", interactive=False)
            files = gr.File(label="Answers", visible=False, interactive=False, file_count="multiple", elem_id="batch-files")
        with gr.Column(scale=7, min_width=320):
            summary = gr.HTML(elem_id="batch-summary", min_height=20)
            with gr.Column(visible=False) as results:
                which = gr.Radio(list(FILTERS), value="All", label="Show", elem_id="batch-filter")
                rows = gr.HTML(elem_id="batch-rows")
            preview = gr.HTML(preview_html(None), elem_id="batch-preview")

    def look(path: str | None, request: gr.Request) -> tuple[str, str, Any, Any]:
        service.require_staff(request)
        try:
            return preview_html(path), "", gr.Column(visible=False), gr.File(visible=False)
        except UserError as error:
            return notice(str(error), "bad"), "", gr.Column(visible=False), gr.File(visible=False)

    def start(
        run: Run, path: str | None, course: str | None, which: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 -- how Gradio hands it over
    ) -> list[Any]:  # fmt: skip
        service.require_staff(request)
        session = str(getattr(request, "session_hash", ""))
        with lock:
            stops[session] = run.stop

        def show(done: int, total: int) -> None:
            progress((done, total), desc=text("Answering"), unit="questions")

        try:
            stopped = answer_file(service, run, path, course, show)
        finally:
            with lock:
                stops.pop(session, None)
        return [
            run, summary_html(run.records, stopped), gr.Column(visible=True), rows_html(run.records, which),
            gr.File(downloads(run), visible=True), "",
        ]  # fmt: skip

    def halt(request: gr.Request) -> None:
        with lock:
            flag = stops.get(str(getattr(request, "session_hash", "")))
        if flag is not None:
            flag.append(True)
            gr.Info("Stopping after the questions that are being read.")

    app.load(course_choices, outputs=course, **QUICKLY)
    course.focus(course_choices, course, course, **QUICKLY)
    file.change(shown(look), file, [preview, summary, results, files], **QUICKLY)
    go.click(lambda: (gr.Button(interactive=False), gr.Button(interactive=True)), outputs=[go, stop], **QUICKLY)
    done = go.click(
        shown(start), [run, file, course, which], [run, summary, results, rows, files, preview], show_progress_on=[summary],
        concurrency_limit=2, concurrency_id="batch", api_visibility="private",
    )  # fmt: skip
    done.then(lambda: (gr.Button(interactive=True), gr.Button(interactive=False)), outputs=[go, stop], **QUICKLY)
    stop.click(halt, **QUICKLY)
    which.change(lambda run, which: rows_html(run.records, which), [run, which], rows, **QUICKLY)
