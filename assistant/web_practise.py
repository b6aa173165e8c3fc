"""The tab Practise: questions one at a time, the student's letter first, then the right one and where it stands."""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import gradio as gr

from assistant.answer import Answer
from assistant.batch import as_text
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.quiz import QuizItem, make_quiz
from assistant.web_look import bars, empty, marked, notice, quiet, table, text, tiles
from assistant.web_pages import NO_VIEW, View, viewer
from assistant.web_parts import QUICKLY, download_folder, question_file
from assistant.web_service import Service, shown
from ingest.course import Course, course_names
from ingest.errors import CourseError, UserError

FROM_COURSE, FROM_FILE = "The course's own pages", "A question file"
_MOST = 200  # questions of one round
_KEPT = 500  # answers that the browser remembers
_COLUMNS = ("time", "course", "question", "yours", "right", "assistant", "document", "page")
_HEADINGS = ("When", "Course", "Question", "Yours", "Right", "Assistant", "Document", "Page")


@dataclass(frozen=True, slots=True)
class Item:
    """A question to practise: where its answer stands, as far as that is known, and the text that gives it."""

    mcq: MCQ
    document: str = ""
    page: int = 0
    evidence: str = ""


@dataclass(slots=True)
class Practice:
    """One round: its questions, where it stands, and the letters given so far (one for each question that was checked)."""

    items: Sequence[Item] = ()
    course: str = ""
    place: int = 0
    letters: list[str] = field(default_factory=list)
    answer: Answer | None = None

    @property
    def item(self) -> Item | None:
        """The question at hand, None before a round and after it."""
        return self.items[self.place] if self.place < len(self.items) else None

    @property
    def checked(self) -> bool:
        """Whether the question at hand was answered by the student."""
        return len(self.letters) > self.place

    @property
    def graded(self) -> list[tuple[Item, str]]:
        """The answered questions that have a key, each with the student's letter."""
        return [(item, given) for item, given in zip(self.items, self.letters, strict=False) if item.mcq.answer]

    @property
    def right(self) -> int:
        """How many of these were right."""
        return sum(given == item.mcq.answer for item, given in self.graded)


def from_course(name: str, count: int, seed: int) -> list[Item]:
    """Return `count` questions made of a course's pages, drawn by `seed`; raises CourseError where it gives none."""
    course = Course.open(name)
    made = list(_quiz(name, course.fingerprint()))
    if not made:
        raise CourseError(f"the pages of '{name}' define too little to make questions of; use a question file")
    random.Random(seed).shuffle(made)
    return [Item(one.mcq, one.document, one.page, one.evidence) for one in made[:count]]


@lru_cache(maxsize=8)
def _quiz(name: str, _state: str) -> tuple[QuizItem, ...]:
    course = Course.open(name)
    ready = [record.path for record in course.documents() if record.status == "indexed"]
    return tuple(make_quiz({path: course.pages(path) for path in ready}, limit=400))


def from_file(path: str | None, count: int) -> tuple[list[Item], list[str]]:
    """Return the first `count` questions of a file, and what is wrong with its other rows; raises UserError."""
    file = question_file(path)
    items: list[Item] = []
    bad: list[str] = []
    for row in read_mcqs(file):
        if row.mcq is None:
            bad.append(f"row {row.line}: {row.error}")
        else:
            document, page, evidence = (row.fields.get(key) for key in ("document", "page", "evidence"))
            place = (str(document), page) if isinstance(document, str) and isinstance(page, int) else ("", 0)
            items.append(Item(row.mcq, *place, evidence if isinstance(evidence, str) else ""))
        if len(items) >= count:
            break
    if not items:
        raise UserError(f"{file.name} holds no question" + (f" ({bad[0]})" if bad else ""))
    return items, bad


def question_html(practice: Practice) -> str:
    """Return the question at hand, with its place and the score so far."""
    item = practice.item
    if item is None:
        return ""
    score = f" · {practice.right} of {len(practice.graded)} right" if practice.graded else ""
    return (
        f'<p class="quiet" aria-live="polite">Question {practice.place + 1} of {len(practice.items)}{text(score)}</p>'
        f'<div class="answer"><div class="asked">{text(item.mcq.question)}</div></div>'
    )


def verdict_html(practice: Practice) -> str:
    """Return what became of the student's letter: the right one, the assistant's, and the text that says so."""
    item, answer = practice.item, practice.answer
    if item is None or answer is None or not practice.checked:
        return ""
    given, right = practice.letters[practice.place], item.mcq.answer
    if right is None:
        said = notice(f"You chose {given}, the assistant {answer.letter}. The file does not say which is right.")
    elif given == right:
        said = notice(f"{given} is right.", "good")
    else:
        said = notice(f"{given} is not right. The right answer is {right}.", "warn")
    shares = bars(item.mcq.letters, item.mcq.options, answer.probabilities, answer.letter, None, right)
    who = f"The assistant says {answer.letter} and is {max(answer.probabilities):.0%} sure."
    return f'{said}<div class="panel">{quiet(who)}<div class="answer">{shares}</div></div>{_source_html(item, answer)}'


def _source_html(item: Item, answer: Answer) -> str:
    if item.document:
        place, passage, sentence = f"{item.document}, p. {item.page}", item.evidence, item.evidence
    elif answer.sources:
        found = answer.sources[0].passage
        place, passage, sentence = found.place, found.text, ""
    else:
        return ""
    body = f'<div class="passage">{marked(passage, sentence)}</div>' if passage else ""
    return f'<h2 class="part">Where it stands</h2><div class="source"><div class="place">{text(place)}</div>{body}</div>'


def source_view(practice: Practice) -> View:
    """Return the page that answers the question at hand."""
    item, answer = practice.item, practice.answer
    if item is None or answer is None or not practice.course:
        return NO_VIEW
    known = {record.path: record.unit for record in Course.open(practice.course, check=False).documents()}
    if item.document in known:
        return View(practice.course, item.document, item.page, item.evidence, known[item.document])
    if not answer.sources:
        return NO_VIEW
    found = answer.sources[0].passage
    return View(practice.course, found.document, found.page_first, found.text, found.unit)


def read_again(practice: Practice) -> list[tuple[str, int, int]]:
    """Return (document, page, missed questions) for the pages of the questions that were missed, most missed first."""
    missed: dict[tuple[str, int], int] = {}
    for item, given in practice.graded:
        if given != item.mcq.answer and item.document:
            missed[item.document, item.page] = missed.get((item.document, item.page), 0) + 1
    return sorted(((document, page, n) for (document, page), n in missed.items()), key=lambda one: (-one[2], one[:2]))


def result_html(practice: Practice) -> str:
    """Return the score of a round, and what to read again."""
    graded = len(practice.graded)
    share = f"{practice.right / graded:.0%}" if graded else "–"
    shown_tiles = tiles(
        [(f"{practice.right} of {graded}", "right"), (share, "score"), (str(len(practice.letters)), "answered")]
    )
    pages = read_again(practice)
    if pages:
        again = '<h2 class="part">Read again</h2>' + table(["Document", "Page", "Missed"], pages, label="Pages to read again")
    else:
        again = quiet("Nothing to read again: no question with a known page was missed.")
    return f'<h2 class="part">Your score</h2>{shown_tiles}{again}'


def history_row(practice: Practice) -> dict[str, Any]:
    """Return what the browser remembers of the question at hand."""
    item, answer = practice.item, practice.answer
    assert item is not None and answer is not None  # noqa: S101, PT018 -- it was checked
    return {
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
        "course": practice.course,
        "question": item.mcq.question[:200],
        "yours": practice.letters[practice.place],
        "right": item.mcq.answer or "",
        "assistant": answer.letter,
        "document": item.document,
        "page": item.page or "",
    }


def cleaned(history: Any) -> list[dict[str, str]]:
    """Return the history that a browser sent, whatever it sent, as rows of short texts."""
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    return [{name: str(row.get(name, ""))[:300] for name in _COLUMNS} for row in rows[-_KEPT:]]


def history_html(history: Any) -> str:
    """Return the latest answers in the history as a table, and how many of all were right."""
    rows = cleaned(history)
    if not rows:
        return quiet("What you practise is remembered in this browser only.")
    graded = [row for row in rows if row["right"]]
    right = sum(row["yours"] == row["right"] for row in graded)
    shown_rows = [[row[name] for name in _COLUMNS] for row in reversed(rows[-100:])]
    return quiet(f"{right} of {len(graded)} right so far, on this browser.") + table(
        _HEADINGS, shown_rows, label="What you practised"
    )


def export(history: Any) -> str:
    """Write the history as a CSV file that a spreadsheet takes for text; returns its path."""
    path = download_folder() / "practice.csv"
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        rows.writeheader()
        rows.writerows({name: as_text(value) for name, value in row.items()} for row in cleaned(history))
    return str(path)


def practise_tab(app: gr.Blocks, service: Service, history: gr.BrowserState) -> None:
    """Build the tab. `history` is what this browser remembers of earlier rounds."""
    practice = gr.State(Practice(), time_to_live=6 * 3600)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            course = gr.Dropdown(label="Course", choices=[], elem_id="practise-course")
            source = gr.Radio([FROM_COURSE, FROM_FILE], value=FROM_COURSE, label="Questions from", elem_id="practise-source")
            file = gr.File(
                label="Question file (.jsonl, .json or .csv)", file_types=[".jsonl", ".json", ".csv"], visible=False,
                height=140, elem_id="practise-file",
            )  # fmt: skip
            count = gr.Slider(1, 50, value=10, step=1, label="How many", elem_id="practise-count")
            start = gr.Button("Start", variant="primary", elem_id="practise-start")
        with gr.Column(scale=7, min_width=320):
            asked = gr.HTML(
                empty("Test yourself", "Choose a course and press Start. You answer first, then the assistant."),
                elem_id="practise-question",
            )
            letter = gr.Radio([], label="Your answer", visible=False, elem_id="practise-letter", elem_classes="choice")
            check = gr.Button("Check  (Ctrl+Enter)", variant="primary", visible=False, elem_id="check")
            verdict = gr.HTML(elem_id="practise-verdict")
            onward = gr.Button("Next  (Ctrl+Enter)", variant="primary", visible=False, elem_id="next-question")
            pages = viewer("practise-page")
    with gr.Accordion("Your history", open=False, elem_id="practise-history"):
        past = gr.HTML()
        with gr.Row():
            save = gr.Button("Make a CSV file", size="sm", elem_id="practise-export")
            forget = gr.Button("Forget everything", size="sm")
        exported = gr.File(label="Your history", visible=False, interactive=False, elem_id="practise-csv")

    def choices(now: str | None = None) -> Any:
        names = course_names()
        return gr.Dropdown(choices=names, value=now if now in names else names[0] if names else None)

    def ask(practice: Practice, remark: str = "") -> list[Any]:
        item = practice.item
        if item is None:
            return [
                practice, result_html(practice), gr.Radio(visible=False), gr.Button(visible=False), "",
                gr.Button(visible=False), NO_VIEW,
            ]  # fmt: skip
        lines = [(f"{a}. {option}", a) for a, option in zip(item.mcq.letters, item.mcq.options, strict=True)]
        return [
            practice, remark + question_html(practice),
            gr.Radio(choices=lines, value=None, visible=True, interactive=True), gr.Button(visible=True), "",
            gr.Button(visible=False), NO_VIEW,
        ]  # fmt: skip

    def begin(name: str | None, kind: str, path: str | None, many: float) -> list[Any]:
        wanted = max(1, min(_MOST, int(many)))
        remark = ""
        if kind == FROM_FILE:
            items, bad = from_file(path, wanted)
            remark = notice(f"{len(bad)} rows cannot be used: {'; '.join(bad[:3])}", "warn") if bad else ""
        else:
            if not name:
                raise CourseError("choose a course first; staff adds courses on the tab Courses")
            items = from_course(name, wanted, random.SystemRandom().randrange(2**31))
        return ask(Practice(items, name or ""), remark)

    def grade(practice: Practice, given: str | None, past: Any) -> list[Any]:
        item = practice.item
        if item is None or practice.checked:
            raise UserError("start a round first")
        if given not in tuple(item.mcq.letters):
            raise UserError("choose your answer first")
        practice.answer = service.answer(item.mcq, practice.course or None)
        practice.letters.append(str(given))
        rows = [*cleaned(past), history_row(practice)][-_KEPT:]
        last = practice.place + 1 == len(practice.items)
        return [
            practice, question_html(practice), gr.Radio(interactive=False), gr.Button(visible=False), verdict_html(practice),
            gr.Button("See your score  (Ctrl+Enter)" if last else "Next  (Ctrl+Enter)", visible=True), source_view(practice),
            rows, history_html(rows),
        ]  # fmt: skip

    def go_on(practice: Practice) -> list[Any]:
        if practice.checked:
            practice.place += 1
            practice.answer = None
        return ask(practice)

    outputs = [practice, asked, letter, check, verdict, onward, pages.view]
    app.load(choices, outputs=course, **QUICKLY)
    app.load(history_html, history, past, **QUICKLY)
    course.focus(choices, course, course, **QUICKLY)
    source.change(lambda kind: gr.File(visible=kind == FROM_FILE), source, file, **QUICKLY)
    begun = start.click(
        shown(begin), [course, source, file, count], outputs, show_progress_on=[asked], concurrency_limit=4,
        api_visibility="private",
    )  # fmt: skip
    graded = check.click(
        shown(grade), [practice, letter, history], [*outputs, history, past], show_progress_on=[verdict],
        concurrency_limit=16, concurrency_id="ask", api_visibility="private",
    )  # fmt: skip
    went = onward.click(shown(go_on), practice, outputs, **QUICKLY)
    for event in (begun, graded, went):
        event.success(pages.show, pages.view, pages.outputs, show_progress="hidden", api_visibility="private")
    save.click(lambda rows: gr.File(export(rows), visible=True), history, exported, **QUICKLY)
    forget.click(lambda: ([], history_html([])), outputs=[history, past], **QUICKLY)
