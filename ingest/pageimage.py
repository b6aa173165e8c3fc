"""One page of a PDF → a picture of it, a passage marked; in a process of its own that may use so much time and memory."""

import json
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import UnreadableDocumentError
from ingest.read import limit_memory

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDS = 15.0  # what one page may take, starting the process included
_MEGABYTES = 768  # of address space
_WIDTH, _HEIGHT = 1000, 1800  # pixels at most
_LARGEST = 8 * 2**20  # bytes of a picture
_CHARACTERS = 60_000  # of a page that are looked through
_SEED = 18  # characters in a row that a passage and its page have in common where they are the same text
_STEP = 6  # characters from one such piece of a passage to the next
_GAP = 40  # characters between two marked pieces that are marked as well: a formula, a word that was broken
_MARK = (255, 232, 140)  # red, green, blue; multiplied with the page, so that its letters stay as dark as they are
_AT_ONCE = threading.BoundedSemaphore(2)  # processes; whoever turns pages quickly waits

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page as a PNG; `pages` is how many its document has, `marked` whether the passage was found on this one."""

    png: bytes
    pages: int
    marked: bool


def render_page(path: Path, page: int, text: str = "", *, password: str = "", seconds: float = SECONDS) -> PageImage:
    """Draw page `page` (from 1) of the PDF at `path`, what it holds of `text` marked; pictures drawn lately are kept.

    Hyphens, white space, ligatures and case do not matter where the text is looked for. Raises UnreadableDocumentError where
    there is no such page, or where drawing it crashes, takes longer than `seconds` or needs too much memory.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise UnreadableDocumentError("damaged", f"the file {path.name} is not there any more") from error
    return _rendered(path, changed, page, text, password, seconds)


@lru_cache(maxsize=64)
def _rendered(path: Path, _changed: int, page: int, text: str, password: str, seconds: float) -> PageImage:
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    asked = json.dumps({"path": str(path), "page": page, "text": text, "password": password})
    try:
        with _AT_ONCE:
            done = subprocess.run(
                [sys.executable, "-m", "ingest.pageimage"],
                input=asked.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=seconds,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise UnreadableDocumentError("stopped", "drawing this page took too long and was stopped") from error
    head, _, png = done.stdout.partition(b"\n")
    if done.returncode or not head or len(png) > _LARGEST:
        raise UnreadableDocumentError("stopped", "this page cannot be drawn")
    answer = json.loads(head)
    if "reason" in answer:
        raise UnreadableDocumentError("damaged", answer["reason"])
    return PageImage(png, answer["pages"], answer["marked"])


def find_text(passage: str, page: str) -> list[tuple[int, int]]:
    """Return the parts (first character, end) of `page` that say what `passage` says, in order; both as letters and digits.

    A passage may go on over its page's end, and a page may hold what its passage lost: a running head, a broken word.
    """
    whole = page.find(passage) if passage else -1
    if whole >= 0:
        return [(whole, whole + len(passage))]
    length = min(_SEED, len(passage))
    if not length:
        return []
    starts = range(0, max(1, len(passage) - length + 1), _STEP)
    found = sorted({at for start in starts for at in _occurrences(passage[start : start + length], page)})
    if not found or (len(found) == 1 and len(passage) > 4 * length):
        return []  # one common phrase makes no passage
    # The pieces of one passage stand together; a phrase of it that the page repeats elsewhere is not meant.
    reach = len(passage) + 10 * _GAP
    first = max(found, key=lambda start: sum(start <= at < start + reach for at in found))
    parts: list[tuple[int, int]] = []
    for at in (at for at in found if first <= at < first + reach):
        if parts and at <= parts[-1][1] + _GAP:
            parts[-1] = (parts[-1][0], at + length)
        else:
            parts.append((at, at + length))
    return parts


def _occurrences(piece: str, page: str) -> Iterator[int]:
    at = page.find(piece)
    while at >= 0:
        yield at
        at = page.find(piece, at + 1)


def _plain(text: str) -> str:
    """Return the letters and digits of a text, ligatures taken apart, in lower case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _draw(path: str, page: int, text: str, password: str) -> tuple[dict[str, Any], bytes]:
    import pypdfium2 as pdfium
    from PIL import ImageChops

    try:
        document = pdfium.PdfDocument(path, password=password or None)
    except pdfium.PdfiumError:
        return {"reason": "this file cannot be opened as a PDF"}, b""
    pages = len(document)
    if not 1 <= page <= pages:
        return {"reason": f"this document has pages 1 to {pages}"}, b""
    try:
        sheet = document[page - 1]
        width, height = sheet.get_size()
        if not (width > 0 and height > 0):
            return {"reason": "this page has no size"}, b""
        bitmap = sheet.render(scale=min(_WIDTH / width, _HEIGHT / height))
    except pdfium.PdfiumError:
        return {"reason": "this page cannot be drawn"}, b""
    picture = bitmap.to_pil().convert("RGB")
    boxes = list(_boxes(sheet, bitmap, text)) if text.strip() else []
    if boxes:
        picture = ImageChops.multiply(picture, _marks(picture, boxes))
    out = BytesIO()
    picture.save(out, "PNG")
    return {"pages": pages, "marked": bool(boxes)}, out.getvalue()


def _boxes(sheet: Any, bitmap: Any, text: str) -> Iterator[Box]:
    """Yield the rectangles (left, top, right, bottom, in pixels) around what the page holds of `text`, one a line."""
    import pypdfium2 as pdfium
    import pypdfium2.raw as raw

    on_page = sheet.get_textpage()
    letters: list[str] = []
    places: list[int] = []  # of each letter among the page's characters
    for index in range(min(on_page.count_chars(), _CHARACTERS)):
        for letter in _plain(chr(raw.FPDFText_GetUnicode(on_page, index))):
            letters.append(letter)
            places.append(index)
    to_pixels = bitmap.get_posconv(sheet)
    for start, end in find_text(_plain(text), "".join(letters)):
        first = places[start]
        try:
            count = on_page.count_rects(first, places[end - 1] - first + 1)
            for number in range(min(count, 500)):
                left, bottom, right, top = on_page.get_rect(number)
                (x0, y0), (x1, y1) = to_pixels.to_bitmap(left, bottom), to_pixels.to_bitmap(right, top)
                yield min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        except pdfium.PdfiumError:
            continue


def _marks(picture: "Image", boxes: Sequence[Box]) -> "Image":
    from PIL import Image, ImageDraw

    layer = Image.new("RGB", picture.size, (255, 255, 255))
    draw = ImageDraw.Draw(layer)
    for left, top, right, bottom in boxes:
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=_MARK)
    return layer


def _main() -> None:
    """Draw the page that standard input asks for; a line of JSON and the PNG go to standard output."""
    # What a library prints must not end up in the picture.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.read())
    limit_memory(_MEGABYTES)
    try:
        head, png = _draw(asked["path"], asked["page"], asked["text"], asked["password"])
    except MemoryError:
        head, png = {"reason": "drawing this page needs too much memory"}, b""
    answers.write(json.dumps(head).encode() + b"\n" + png)
    answers.flush()


if __name__ == "__main__":
    _main()
