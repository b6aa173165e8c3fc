"""What every reader returns: a document's pages as clean text, with the headings that stand on them."""

from dataclasses import dataclass
from typing import Literal

Reader = Literal["pypdf", "pdfium", "ocr", "text", "markdown", "html", "docx", "pptx", ""]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: `level` counts from 1 (a chapter) downwards; `start` is the character of its page's text it begins at."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Page:
    """The clean text of one page, or slide. `number` counts from 1, as viewers do; `text` is empty where there is none.

    `reader` names what extracted the text. `headings` are in the order of their places.
    """

    number: int
    text: str
    headings: tuple[Heading, ...] = ()
    reader: Reader = ""


@dataclass(frozen=True, slots=True)
class DocumentText:
    """All pages of a document, in order, and the numbers of those whose text could not be extracted.

    `unit` says what a page is: "page", "slide", or "" where the format has none (then all text is page 1).
    """

    pages: tuple[Page, ...]
    unreadable_pages: tuple[int, ...] = ()
    unit: Literal["page", "slide", ""] = "page"
