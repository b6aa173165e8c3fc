"""The tab Ask: a pasted question, its answer, and the pages it rests on."""

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from assistant import feedback
from assistant.answer import LITTLE_MASS, Answer, Influence
from assistant.mcq import LETTERS, MCQ, QuestionError, parse_question
from assistant.web_look import FOCUS_ANSWER, bars, empty, marked, notice, quiet, text
from assistant.web_pages import NO_VIEW, PageViewer, View, viewer
from assistant.web_parts import NO_COURSE, QUICKLY, chosen_course, course_choices
from assistant.web_service import Service, Unwanted, shown
from ingest.course import course_names
from ingest.errors import UserError

_EXAMPLE = "Which state does a process enter when it waits for a disk?\nA. Ready\nB. Blocked\nC. Running\nD. Terminated"
_LABEL = re.compile(r"\(?([A-Ja-j]|10|[1-9])[.):]\)?\s+")
_KEPT = 50  # questions of one visitor that the arrow keys reach
_LOOSE = 0.5  # a relevance below it says that a course probably holds nothing about the question
_LITTLE = 0.005  # a change of probability that rounds to nothing
_NOTHING_YET = empty("Your answer will appear here", "Paste a question with its options, then press Ctrl+Enter.")
# A click on a card's button opens its page beside it.
_ON_CARD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-show]');
  if (button) trigger('click', { place: Number(button.dataset.show) });
});
"""


@dataclass(slots=True)
class Asked:
    """A question that was asked and what is known of its answer by now; `alone` is the answer without the course."""

    answer: Answer
    course: str | None
    alone: Answer | None = None
    influences: list[Influence] | None = None
    correction: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(slots=True)
class Asking:
    """What one visitor asked, in order, and which question is looked at. `open` is the source whose page is shown."""

    history: list[Asked] = field(default_factory=list)
    place: int = -1
    open: int = 0

    @property
    def current(self) -> Asked | None:
        """The question looked at, None before the first."""
        return self.history[self.place] if self.history else None

    def add(self, asked: Asked) -> None:
        """Look at a new question; the oldest is forgotten when there are too many."""
        self.history = [*self.history, asked][-_KEPT:]
        self.place, self.open = len(self.history) - 1, 0

    def step(self, by: int) -> None:
        """Look at an earlier or later question, as far as there are any."""
        self.place = max(0, min(len(self.history) - 1, self.place + by))
        self.open = 0


def to_fields(pasted: str | None) -> tuple[str, str]:
    """Parse a pasted question into stem and options, a line each with its letter; raises QuestionError."""
    mcq = parse_question(pasted or "")
    return mcq.question, _lines(mcq)


def _lines(mcq: MCQ) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(mcq.letters, mcq.options, strict=True))


def from_fields(stem: str, options: str) -> MCQ:
    """Return the question in the fields; options stand one to a line, with or without labels."""
    lines = [line.strip() for line in options.splitlines() if line.strip()]
    if lines and all(_LABEL.match(line) for line in lines):
        lines = [_LABEL.sub("", line, count=1) for line in lines]
    return MCQ(stem.strip(), tuple(lines))


def understand(pasted: str | None, stem: str | None, options: str | None) -> tuple[str, str, str, str]:
    """Parse what was pasted, as it is typed → (stem, options, what was understood as HTML, the text that was parsed).

    Where it is no question yet, the fields stay as they are.
    """
    pasted = pasted or ""
    if not pasted.strip():
        return "", "", understood_html("", ""), ""
    try:
        return (*(fields := to_fields(pasted)), understood_html(*fields), pasted)
    except QuestionError as error:
        return stem or "", options or "", _understood(f"Not a complete question yet: {error}.", problem=True), ""


def understood_html(stem: str | None, options: str | None) -> str:
    """Say in a line what the fields hold."""
    if not (stem or "").strip() and not (options or "").strip():
        return _understood("")
    try:
        mcq = from_fields(stem or "", options or "")
    except QuestionError as error:
        return _understood(f"Not a complete question yet: {error}.", problem=True)
    return _understood(f"Understood: a question with {len(mcq.options)} options, A to {mcq.letters[-1]}.")


def _understood(words: str, *, problem: bool = False) -> str:
    return f'<p class="understood{" problem" if problem else ""}" aria-live="polite">{text(words)}</p>'


def question(pasted: str | None, stem: str | None, options: str | None, parsed: str | None) -> MCQ:
    """Return the question that is meant: the fields, unless something else was pasted since they were filled."""
    pasted = (pasted or "").strip()
    if pasted and pasted != (parsed or "").strip():
        return parse_question(pasted)
    return from_fields(stem or "", options or "")


def answer_html(asked: Asked) -> str:
    """Return an answer as HTML: the letter, a bar for each option, and what to know about it."""
    answer, alone = asked.answer, asked.alone
    differs = alone is not None and alone.letter != answer.letter
    verdict = (
        f'<div class="verdict"><div class="letter">{answer.letter}</div>'
        f'<div class="sure">{max(answer.probabilities):.0%} sure</div></div>'
    )
    other = alone.probabilities if alone is not None and differs else None
    rows = bars(answer.mcq.letters, answer.mcq.options, answer.probabilities, answer.letter, other, asked.correction)
    legend = ""
    if alone is not None and differs:
        legend = (
            f'<div class="legend"><span class="with"><i></i>With course material: <b>{answer.letter}</b></span>'
            f'<span class="without"><i></i>Without: <b>{alone.letter}</b> ({max(alone.probabilities):.0%})</span></div>'
        )
    remarks = "".join(notice(words, "warn") for words in warnings(asked))
    how = quiet(f"Answered by {answer.model} in {answer.seconds:.1f} s.")
    return (
        f'<div class="panel"><div class="answer"><div class="asked">{text(answer.mcq.question)}</div>{verdict}{rows}</div>'
        f"{legend}{remarks}{how}</div>"
    )


def warnings(asked: Asked) -> Iterator[str]:
    """Yield what a student should know before trusting an answer."""
    answer = asked.answer
    if answer.letter_mass is not None and answer.letter_mass < LITTLE_MASS:
        yield "This model hardly ever answers with a letter, so treat the letter as a guess."
    if asked.course and not answer.sources:
        yield f"The course {asked.course} seems to say nothing about this, so the answer comes from the model alone."
    elif answer.sources and max(hit.relevance for hit in answer.sources) < _LOOSE:
        yield "The passages below may be about something else. Check them before you trust the answer."
    if any(words.startswith("only ") for words in answer.warnings):
        yield "The question is long, so not all passages could be read with it."


def sources_html(asking: Asking) -> str:
    """Return the passages of the current answer as cards."""
    asked = asking.current
    if asked is None:
        return ""
    if not asked.answer.sources:
        return quiet("No course material was used for this answer.")
    cards = "".join(_card(asked, place, place == asking.open) for place in range(len(asked.answer.sources)))
    waiting = quiet("Working out how much each passage mattered …") if asked.influences is None else ""
    return f'<h2 class="part">What this rests on</h2>{waiting}{cards}'


def _card(asked: Asked, place: int, is_open: bool) -> str:
    passage = asked.answer.sources[place].passage
    heading = f'<div class="heading">{text(passage.heading)}</div>' if passage.heading else ""
    body, moved = text(passage.text), ""
    if asked.influences is not None:
        influence = asked.influences[place]
        body = marked(passage.text, influence.sentence.strip())
        moved = f'<div class="moved">{text(_moved(influence.drop, asked.answer.letter))}</div>'
    name = f"Show page {passage.page_first}" if passage.pages else "Show the text"
    return (
        f'<div class="source{" open" if is_open else ""}"><div class="place">{place + 1}. {text(passage.place)}</div>{heading}'
        f'<div class="passage">{body}</div>{moved}'
        f'<button type="button" class="show" data-show="{place}" aria-label="{text(name)} of source {place + 1}">'
        f"{text(name)}</button></div>"
    )


def _moved(drop: float, letter: str) -> str:
    if abs(drop) < _LITTLE:
        return f"Hardly changed how likely {letter} is."
    points = f"{100 * abs(drop):.0f} percentage point{'s' if round(100 * abs(drop)) != 1 else ''}"
    return f"Made {letter} {points} {'more' if drop > 0 else 'less'} likely."


def shown_page(asking: Asking) -> View:
    """Return which page to show for the source that is open."""
    asked = asking.current
    if asked is None or not asked.course or not asked.answer.sources:
        return NO_VIEW
    passage = asked.answer.sources[asking.open].passage
    return View(asked.course, passage.document, passage.page_first, passage.text, passage.unit)


def record_correction(asking: Asking, letter: str | None) -> str:
    """Keep what the student holds right for the current question; returns what to say about it. Raises UserError."""
    asked = asking.current
    if asked is None:
        raise UserError("ask a question first")
    if letter not in tuple(asked.answer.mcq.letters):
        raise UserError("choose a letter first")
    feedback.record(feedback.correction(asked.answer, str(letter), course=asked.course, asked=asked.id))
    asked.correction = letter
    return notice(f"Thank you. {letter} is noted as the right answer; it stays on this machine.", "good")


class _Ask:
    """The callbacks of the tab, which know the service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ask(
        self,
        asking: Asking,
        course: str | None,
        pasted: str | None,
        stem: str | None,
        options: str | None,
        parsed: str | None,
    ) -> list[Any]:
        """Answer the question; what is wrong with it stays on the page in place of the answer."""
        try:
            mcq = question(pasted, stem, options, parsed)
            chosen = chosen_course(course)
            asking.add(Asked(self.service.answer(mcq, chosen), chosen))
        except UserError as error:
            return [asking, notice(f"{str(error)[:1].upper()}{str(error)[1:]}.", "bad"), *[gr.skip()] * 6, stem, options]
        return [asking, *self.look(asking), mcq.question, _lines(mcq)]

    def look(self, asking: Asking) -> list[Any]:
        """Return all that shows the current question: answer, sources, page, place, buttons and correction."""
        asked = asking.current
        if asked is None:
            return [_NOTHING_YET, "", NO_VIEW, "", gr.Row(visible=False), gr.Column(visible=False), gr.Radio()]
        place = f"Question {asking.place + 1} of {len(asking.history)}"
        letters = list(asked.answer.mcq.letters)
        return [
            answer_html(asked),
            sources_html(asking),
            shown_page(asking),
            f'<p class="page-name" aria-live="polite">{place}</p>',
            gr.Row(visible=len(asking.history) > 1),
            gr.Column(visible=True),
            gr.Radio(choices=letters, value=asked.correction),
        ]

    def follow(self, asking: Asking) -> Iterator[tuple[Any, Any]]:
        """After the answer: ask without the course, then how much each passage mattered."""
        asked = asking.current
        yield gr.skip(), gr.skip()  # without a value, Gradio would empty both
        if asked is None or asked.influences is not None:
            return

        def wanted() -> bool:
            return asking.current is asked

        with suppress(Unwanted):  # the visitor looks at another question; coming back goes on with this one
            if asked.course and asked.answer.sources and asked.alone is None:
                asked.alone = self.service.patient(None, wanted).answer(asked.answer.mcq)
                yield answer_html(asked), gr.skip()
            asked.influences = self.service.patient(asked.course, wanted).explain(asked.answer) if asked.answer.sources else []
            if wanted():
                yield answer_html(asked), sources_html(asking)


def ask_tab(app: gr.Blocks, service: Service, last: gr.BrowserState) -> None:
    """Build the tab. `last` is the course that this browser asked about last."""
    calls = _Ask(service)
    asking = gr.State(Asking(), time_to_live=6 * 3600)
    # Not a gr.State, which the server keeps: it must be as old as the fields that are sent along with it.
    parsed = gr.Textbox("", visible=False)
    with gr.Row(equal_height=False, elem_id="ask-parts"):
        with gr.Column(min_width=320, elem_id="ask-question"):
            # Any value is taken, for the choices of another visitor's, or of a script's, may be older; the course is checked.
            course = gr.Dropdown(
                label="Course", choices=[NO_COURSE], value=NO_COURSE, allow_custom_value=True, elem_id="course"
            )
            pasted = gr.Textbox(
                label="Paste a question with its options", lines=6, max_lines=14, placeholder=_EXAMPLE, elem_id="question"
            )
            understood = gr.HTML(understood_html("", ""), elem_id="understood")
            ask = gr.Button("Ask  (Ctrl+Enter)", variant="primary", elem_id="ask", size="lg")
            with gr.Group(elem_id="fields"):
                stem = gr.Textbox(label="Question, as understood", lines=2, max_lines=8, elem_id="stem")
                options = gr.Textbox(
                    label=f"Options, one to a line (2 to {len(LETTERS)})", lines=4, max_lines=12, elem_id="options"
                )
        with gr.Column(min_width=320, elem_id="ask-answer"):
            with gr.Row(visible=False, elem_classes="place-row") as places:
                older = gr.Button("‹ Earlier", size="sm", elem_id="older", min_width=80)
                place = gr.HTML()
                newer = gr.Button("Later ›", size="sm", elem_id="newer", min_width=80)
            answer = gr.HTML(_NOTHING_YET, elem_id="answer", min_height=80)
            with (
                gr.Column(visible=False) as correcting,
                gr.Accordion("What is the right answer?", open=False, elem_id="correct"),
            ):
                letter = gr.Radio(choices=["A", "B"], label="The right answer is", elem_id="right-letter")
                save = gr.Button("Save", size="sm", elem_id="save-correction")
                saved = gr.HTML()
        pages: PageViewer = viewer("ask-page")
        with gr.Column(min_width=320, elem_id="ask-sources"):
            sources = gr.HTML(elem_id="sources", js_on_load=_ON_CARD)

    looks = [answer, sources, pages.view, place, places, correcting, letter]
    alike: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4}

    app.load(course_choices, last, course, **QUICKLY)
    course.input(lambda chosen: chosen, course, last, **QUICKLY)
    course.focus(lambda: gr.Dropdown(choices=[*course_names(), NO_COURSE]), outputs=course, **QUICKLY)
    # "change", for "input" is told of keys only, not of what is pasted.
    pasted.change(
        understand, [pasted, stem, options], [stem, options, understood, parsed], trigger_mode="always_last", **QUICKLY
    )
    gr.on(
        [stem.change, options.change],
        lambda pasted, stem, options: (understood_html(stem, options), pasted or ""),
        [pasted, stem, options],
        [understood, parsed],
        trigger_mode="always_last",
        **QUICKLY,
    )
    asked = gr.on(
        [ask.click, pasted.submit],
        shown(calls.ask),
        [asking, course, pasted, stem, options, parsed],
        [asking, *looks, stem, options],
        show_progress_on=[answer],
        concurrency_limit=16,  # those that wait are answered together
        concurrency_id="ask",
        api_name="ask",
    )
    ask.click(None, js=FOCUS_ANSWER)
    asked.success(lambda: "", outputs=saved, **QUICKLY)
    shown_pages = asked.success(pages.show, [pages.view], pages.outputs, **alike)
    shown_pages.then(calls.follow, [asking], [answer, sources], concurrency_id="explain", **alike)

    def move(by: int) -> Any:
        def go(asking: Asking) -> list[Any]:
            asking.step(by)
            return [asking, *calls.look(asking), ""]

        return go

    for button, by in ((older, -1), (newer, 1)):
        moved = button.click(move(by), asking, [asking, *looks, saved], **QUICKLY)
        seen = moved.success(pages.show, [pages.view], pages.outputs, **alike)
        seen.then(calls.follow, [asking], [answer, sources], concurrency_id="explain", **alike)

    def open_source(asking: Asking, event: gr.EventData) -> tuple[Any, ...]:
        current = asking.current
        wanted = int((event._data or {}).get("place", 0))
        if current is None or not 0 <= wanted < len(current.answer.sources):
            return asking, gr.skip(), gr.skip()
        asking.open = wanted
        return asking, sources_html(asking), shown_page(asking)

    opened = sources.click(open_source, asking, [asking, sources, pages.view], **QUICKLY)
    opened.success(pages.show, [pages.view], pages.outputs, js=pages.scroll, **alike)
    save.click(shown(record_correction), [asking, letter], saved, **QUICKLY).success(
        lambda asking: answer_html(asking.current), asking, answer, **QUICKLY
    )
