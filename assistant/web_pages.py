"""A page of a document beside what is said about it: its picture with the passage marked, and its neighbors."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from assistant.web_look import marked, notice, sheet, text
from ingest.course import Course
from ingest.errors import UserError


@dataclass(frozen=True, slots=True)
class View:
    """Which page is looked at: `passage` is the text to mark on it, `unit` what a page of the document is ("" for none)."""

    course: str = ""
    document: str = ""
    page: int = 1
    passage: str = ""
    unit: str = "page"


NO_VIEW = View()


@dataclass(frozen=True, slots=True)
class PageViewer:
    """The components of a page viewer. `view` is the state that others set; then they call `show` into `outputs`."""

    view: gr.State
    outputs: list[Any]
    scroll: str

    @staticmethod
    def show(view: View) -> list[Any]:
        """Return the values of `outputs` for a view."""
        body, pages = page_html(view)
        name = f'<p class="page-name">{text(page_name(view, pages))}</p>'
        return [
            gr.Column(visible=bool(view.document)), name, body,
            gr.Button(interactive=view.page > 1), gr.Button(interactive=view.page < pages),
        ]  # fmt: skip


def page_name(view: View, pages: int) -> str:
    """Return the document and the page in words."""
    return f"{view.document}, {view.unit} {view.page} of {pages}" if view.unit else view.document


def page_html(view: View) -> tuple[str, int]:
    """Return the page as HTML, and how many pages its document has: a picture of a PDF's, the text of any other.

    Where it cannot be drawn, its text stands in, with the reason.
    """
    if not view.document:
        return "", 0
    reason = ""
    try:
        course = Course.open(view.course, check=False)
        if view.document.lower().endswith(".pdf"):
            try:
                image = course.page_image(view.document, view.page, view.passage)
                return sheet(image, page_name(view, image.pages)), image.pages
            except UserError as error:
                reason = notice(f"The page cannot be shown as a picture: {error}. This is its text.", "warn")
        found = course.pages(view.document)
    except UserError as error:
        return notice(str(error), "bad"), 0
    here = next((page.text for page in found if page.number == view.page), "")
    last = max((page.number for page in found), default=0)
    return f'{reason}<div class="sheet text" tabindex="0">{marked(here, view.passage)}</div>', last


def viewer(elem_id: str) -> PageViewer:
    """Build a page viewer, hidden until there is something to show."""
    view = gr.State(NO_VIEW)
    with gr.Column(visible=False, elem_id=elem_id) as whole:
        with gr.Row(elem_classes="place-row"):
            back = gr.Button("‹ Previous page", size="sm", min_width=110, elem_id=f"{elem_id}-back")
            forth = gr.Button("Next page ›", size="sm", min_width=110, elem_id=f"{elem_id}-forth")
        name = gr.HTML()
        body = gr.HTML(elem_id=f"{elem_id}-sheet", min_height=60)
    scroll = f"(...v) => {{ if (window.innerWidth < 900) document.getElementById('{elem_id}')?.scrollIntoView(); return v; }}"
    made = PageViewer(view, [whole, name, body, back, forth], scroll)

    def turn(by: int) -> Any:
        def go(now: View) -> list[Any]:
            turned = replace(now, page=max(1, now.page + by))
            return [turned, *made.show(turned)]

        return go

    for button, by in ((back, -1), (forth, 1)):
        button.click(
            turn(by), view, [view, *made.outputs], show_progress="hidden", concurrency_limit=4, api_visibility="private"
        )
    return made
