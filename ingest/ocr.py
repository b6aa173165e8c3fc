"""Pages that are pictures → their text, by tesseract."""

import shutil
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ingest.errors import UserError

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

_DPI = 200
_MOST_PIXELS = 20_000_000  # a poster at 200 dpi would take gigabytes
_TIMEOUT = 20  # seconds a page
_MOST_LANGUAGES = 4  # each one costs time; who installed more keeps English and the first ones


def require() -> None:
    """Raise UserError, with the remedy, where OCR cannot run. Call it before work starts."""
    if find_spec("pytesseract") is None:
        raise UserError('OCR needs the Python package pytesseract: pip install "mcqa-assistant[ocr]"')
    if shutil.which("tesseract") is None:
        raise UserError("OCR needs the program tesseract: apt-get install tesseract-ocr")


def read_page(page: "PdfPage") -> str | None:
    """Return the text that tesseract sees on `page`, at most 200 dpi; None where it gave up (20 seconds, or an error).

    It reads in the languages whose data is installed, English first, four at most. Call `require` before.
    """
    import pytesseract

    bitmap = page.render(scale=_scale(*page.get_size()), grayscale=True)
    try:
        text = pytesseract.image_to_string(bitmap.to_pil(), lang=_languages(), timeout=_TIMEOUT)
    except (RuntimeError, pytesseract.TesseractError):  # RuntimeError is what its timeout raises
        return None
    finally:
        bitmap.close()
    return str(text)


def _scale(width: float, height: float) -> float:
    """Return pixels per point for a page of `width` by `height` points."""
    return float(min(_DPI / 72, (_MOST_PIXELS / max(width * height, 1.0)) ** 0.5))


@cache
def _languages() -> str | None:
    import pytesseract

    installed = [name for name in pytesseract.get_languages() if name not in {"osd", "equ"}]
    installed.sort(key=lambda name: (name != "eng", name))
    return "+".join(installed[:_MOST_LANGUAGES]) or None
