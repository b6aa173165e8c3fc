"""One PDF in, its pages as clean text out; what cannot be read says why."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.clean import clean_pages
from ingest.errors import UnreadableDocumentError

if TYPE_CHECKING:
    from pypdf import PdfReader


@dataclass(frozen=True, slots=True)
class Page:
    """The clean text of one page. `number` counts from 1, as PDF viewers do; `text` is empty where the page has none."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentText:
    """All pages of a document, in order, and the numbers of those whose text could not be extracted."""

    pages: tuple[Page, ...]
    unreadable_pages: tuple[int, ...] = ()


def read_pdf(path: Path) -> DocumentText:
    """Read every page of the PDF at `path`.

    Raises UnreadableDocumentError with status "damaged", "encrypted" or "no text". A page that fails on its own is
    returned empty and listed in `unreadable_pages`.
    """
    import pypdf

    # pypdf reports each oddity it repairs; what matters to the user is said by the errors below.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as file:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnreadableDocumentError("encrypted", "it is encrypted and needs a password")
            raw, unreadable = _extract(reader)
    except UnreadableDocumentError:
        raise
    except OSError as error:
        raise UnreadableDocumentError("damaged", f"it cannot be opened ({error.strerror or error})") from error
    except (Exception, RecursionError) as error:
        raise UnreadableDocumentError("damaged", f"it is not a readable PDF ({_brief(error)})") from error
    pages = tuple(Page(number, text) for number, text in enumerate(clean_pages(raw), start=1))
    if not any(page.text for page in pages):
        reason = "no page has text (a scan? run it through OCR first)" if pages else "it has no pages"
        raise UnreadableDocumentError("no text", reason)
    return DocumentText(pages, tuple(unreadable))


def _extract(reader: "PdfReader") -> tuple[list[str], list[int]]:
    raw: list[str] = []
    unreadable: list[int] = []
    for index in range(len(reader.pages)):
        try:
            raw.append(reader.pages[index].extract_text())
        except (Exception, RecursionError):  # noqa: BLE001 -- one bad page must not cost the others
            raw.append("")
            unreadable.append(index + 1)
    return raw, unreadable


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
