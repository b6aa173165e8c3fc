"""Raw text of a document's pages → clean text: whole words, whole paragraphs, no running heads."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

# Presentation forms that stand for ordinary letters. Typeset mathematics uses whole alphabets of its own for italic and
# bold letters; models and searches know the plain ones. Other compatibility characters (², ½, ℃) keep their meaning.
_LIGATURES = range(0xFB00, 0xFB07)
_MATH_LETTERS = range(0x1D400, 0x1D800)
_PLAIN = {code: unicodedata.normalize("NFKC", chr(code)) for code in (*_LIGATURES, *_MATH_LETTERS)}
_PLAIN |= {0x00A0: " ", 0x202F: " ", 0x2007: " ", 0x200B: "", 0x2060: "", 0xFEFF: ""}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # newline and tab stay
_BULLETS = "•◦▪▸‣●○■□–—-*·"
_LIST_ITEM = re.compile(rf"(?:[{re.escape(_BULLETS)}]\s|\(?(?:\d{{1,3}}|[a-zA-Z]|[ivx]{{1,5}})[.)]\s)")
_NUMBERED_HEADING = re.compile(r"\d{1,2}(?:\.\d{1,2}){1,3}\s+[^\W\d_]")  # "2.3.1 Page tables"
_EDGE_LINES = 2  # a running head or foot stands within this many lines of the page's edge
_REACH = 4  # ... and repeats within this many pages before or after


def without_control_characters(text: str) -> str:
    """Return `text` without control characters other than newline and tab."""
    return _CONTROL.sub("", text)


def clean_pages(raw: Sequence[str]) -> list[str]:
    """Clean the pages of one document; they belong together because heads and feet are found by their repetition.

    `raw` holds one string a page, as a PDF reader gives it; the result has the same length. In the result a newline
    ends a paragraph, a list item or a line that stands alone, and nothing else.
    """
    pages = [_lines(text) for text in raw]
    pages = _without_running_lines(pages)
    words = _compound_words(pages)
    return [_paragraphs(lines, words) for lines in pages]


def _lines(text: str) -> list[str]:
    """Normalize characters and return the page's non-empty lines, inner white space collapsed."""
    text = without_control_characters(text.translate(_PLAIN).replace("\r", "\n"))
    text = unicodedata.normalize("NFC", text)
    # A soft hyphen that was printed is a word's break at a line's end, and a plain hyphen within a line.
    text = re.sub("\u00ad[ \t]*\n[ \t]*", "", text).replace("\u00ad", "-")
    return [line for line in (" ".join(line.split()) for line in text.split("\n")) if line]


def _without_running_lines(pages: list[list[str]]) -> list[list[str]]:
    """Drop lines at a page's top or bottom that stand there on at least two near pages as well, numbers aside."""
    tops = [{_shape(line) for line in lines[:_EDGE_LINES]} for lines in pages]
    bottoms = [{_shape(line) for line in lines[-_EDGE_LINES:]} for lines in pages]

    def repeats(line: str, index: int, edges: list[set[str]]) -> bool:
        shape = _shape(line)
        near = range(max(0, index - _REACH), min(len(edges), index + _REACH + 1))
        return sum(shape in edges[other] for other in near if other != index) >= 2

    kept = []
    for index, lines in enumerate(pages):
        first, last = 0, len(lines)
        while first < min(_EDGE_LINES, last) and repeats(lines[first], index, tops):
            first += 1
        while last > max(first, len(lines) - _EDGE_LINES) and repeats(lines[last - 1], index, bottoms):
            last -= 1
        kept.append(lines[first:last])
    return kept


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", line).lower()


def _compound_words(pages: list[list[str]]) -> set[str]:
    """Return the hyphenated words that stand inside lines: evidence that a hyphen at a line's end is a real one."""
    return {word.lower() for lines in pages for line in lines for word in re.findall(r"\w+-\w+", line)}


def _paragraphs(lines: list[str], compounds: set[str]) -> str:
    if not lines:
        return ""
    lengths = sorted(map(len, lines))
    full = lengths[int(0.8 * (len(lengths) - 1))]  # what a full line holds on this page, short ones and outliers aside
    text = lines[0]
    for previous, line in itertools.pairwise(lines):
        if _ends_paragraph(previous, line, full):
            text += "\n" + line
        elif hyphen := re.search(r"(\w+)-$", text):
            tail = re.split(r"\W", line, maxsplit=1)[0]
            keep = f"{hyphen[1]}-{tail}".lower() in compounds or not line[0].islower()
            text = (text if keep else text[:-1]) + line
        else:
            text += ("" if _is_cjk(text[-1]) and _is_cjk(line[0]) else " ") + line
    return text


def _ends_paragraph(line: str, following: str, full: int) -> bool:
    if _LIST_ITEM.match(following) or _NUMBERED_HEADING.match(following):
        return True
    if len(line) >= 0.75 * full:
        return False
    # A short line ends something, unless the sentence plainly runs on in lower case.
    return line[-1] in ".!?:;…。！？" or not following[0].islower()


def _is_cjk(character: str) -> bool:
    """Say whether `character` belongs to a script written without spaces; Korean is wide, but has them."""
    return unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3"
