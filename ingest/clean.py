"""Raw text of a document's pages → clean text: whole words, whole paragraphs, no running heads."""

import itertools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from ingest.words import STOP_WORDS

# What is written instead of a character, for str.translate.
# Presentation forms that stand for ordinary letters. Typeset mathematics uses whole alphabets of its own for italic and
# bold letters; models and searches know the plain ones. Other compatibility characters (², ½, ℃) keep their meaning.
_LIGATURES = range(0xFB00, 0xFB50)  # Latin, Armenian and Hebrew
_ARABIC_FORMS = (*range(0xFB50, 0xFDD0), *range(0xFDF0, 0xFE00), *range(0xFE70, 0xFEFF))
_MATH_LETTERS = range(0x1D400, 0x1D800)
PLAIN = {code: unicodedata.normalize("NFKC", chr(code)) for code in (*_LIGATURES, *_MATH_LETTERS)}
# A vowel mark by itself is given as a space with the mark; the letter before it is its place.
PLAIN |= {code: unicodedata.normalize("NFKC", chr(code)).strip() for code in _ARABIC_FORMS}
PLAIN |= {0x00A0: " ", 0x202F: " ", 0x2007: " ", 0x200B: "", 0x2060: "", 0xFEFF: ""}
PLAIN |= dict.fromkeys((0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "")  # direction marks
# Glyphs that the document does not name; a reader gives them as U+FFFD, non-characters, or control characters.
_LOST_SET = "\ufffd-\uffff\ufdd0-\ufdef\ud800-\udfff"
_LOST = re.compile(f"[{_LOST_SET}]+")
_ANY_LOST = f"[{_LOST_SET}\x00-\x08\x0e-\x1f]"
_ONE_LOST = re.compile(f"(?P<head>[A-Za-z]*)(?<!{_ANY_LOST}){_ANY_LOST}(?!{_ANY_LOST})(?P<tail>[a-z]*)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # newline and tab stay
_BULLETS = "•◦▪▸‣●○■□–—-*·"
_LIST_ITEM = re.compile(rf"(?:[{re.escape(_BULLETS)}]\s|\(?(?:\d{{1,3}}|[a-zA-Z]|[ivx]{{1,5}})[.)]\s)")
_NUMBERED_HEADING = re.compile(r"\d{1,2}(?:\.\d{1,2}){1,3}\s+(?![a-z])[^\W\d_]")  # "2.3.1 Page tables"
_CODE = re.compile(
    r"""[{}]$ | ^\S+;$ | [=()\]].*;$ | ^(?://|/\*|>>>\s|\#include|\#!)
    | ^(?:def|class|for|while|if|elif|switch|function|func|fn|struct|with|except)\b.{,60}[:{]$ | ^(?:else|try|finally):$
    | ^\w+(?:,\ \w+)+\ =\ \S | ^import\ [\w.]+$ | ^from\ [\w.]+\ import\b
    | ^[\w.\[\]]+\ ?(?:[-+*/:]?=|←|<-)\ \S.{,45}(?<![.,])$""",
    re.VERBOSE,
)
_CODE_MARK = re.compile(r"[=(){}\[\];]")
# "page table: what maps ..."; a term has six words at most.
_DEFINITION = re.compile(r'(?P<term>[^\W\d_][^\s:.?!;“”"]*(?: [^\s:.?!;“”"]+){0,5}): \S')
_LONGEST_DEFINITION = 8  # lines
_INDENT = re.compile(r"(?: {2,}|\t)\s*\S")
_WIDE_GAP = re.compile(r"(?<=\S)(?: {3,}|\t)\s*(?=\S)")
_CONTENTS_ENTRY = re.compile(r"(?:\.\s?){4,}\s*[\divxlc]+$")  # "Paging . . . . . 17"
_PAGE_NUMBER = re.compile(
    r"(?P<word>page|p\.|pg\.?|seite|página|pagina|стр\.?|第)?[-–—\[(\s]*(?P<number>\d{1,4}|[ivxlc]{1,8})"
    r"\s*(?:(?:of|/|von|de|sur|из)\s*\d{1,4})?[-–—\])\s]*[页頁ページ]*",
    re.IGNORECASE,
)
_ROMAN = re.compile("c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_BROKEN_WORD = re.compile(r"(\w+)-\Z")
_EDGE_LINES = 2  # a running head or foot stands within this many lines of the page's edge
_REACH = 4  # ... and repeats within this many pages before or after


def without_control_characters(text: str) -> str:
    """Return `text` without control characters other than newline and tab."""
    return _CONTROL.sub("", text)


class _Line(NamedTuple):
    text: str
    kind: Literal["prose", "code", "row", "entry", "title"] = "prose"


def defined_term(line: str) -> str | None:
    """Return the term of a line that looks like the first of a glossary's entry: "page table: what maps pages to frames"."""
    match = _DEFINITION.match(line)
    return match["term"].casefold() if match and match["term"].split()[0] not in STOP_WORDS else None


def squashed(text: str) -> str:
    """Return the letters and digits of `text` in lower case: what two readers' versions of a line have in common."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def clean_pages(raw: Sequence[str], titles: Sequence[Collection[str]] = ()) -> list[str]:
    """Clean the pages of one document; they belong together because heads and feet are found by their repetition.

    `raw` holds one string a page, as a PDF reader gives it; the result has the same length. In the result a newline
    ends a paragraph, a list item, a line of code, a row of a table or a line that stands alone, and nothing else.
    `titles` may hold, for each page, the `squashed` headings known to stand on it: they get lines of their own.
    """
    known = titles or [()] * len(raw)
    pages = [_titled(_lines(text), page) for text, page in zip(raw, known, strict=True)]
    pages = _without_running_lines(pages, known)
    words = _compound_words(pages)
    glossary = _glossary(pages)
    return [_paragraphs(lines, words, starts) for lines, starts in zip(pages, glossary, strict=True)]


def _lines(text: str) -> list[_Line]:
    """Normalize characters and return the page's non-empty lines, inner white space collapsed."""
    text = _ONE_LOST.sub(_with_ligature, text.translate(PLAIN).replace("\r", "\n"))
    text = without_control_characters(_LOST.sub("\ufffd", text))
    text = unicodedata.normalize("NFC", text)
    # A soft hyphen that was printed is a word's break at a line's end, and a plain hyphen within a line.
    text = re.sub("\u00ad[ \t]*\n[ \t]*", "", text).replace("\u00ad", "-")
    printed = [line for line in text.split("\n") if line.strip()]
    indented = [_INDENT.match(line) is not None for line in printed]
    if sum(indented) > len(printed) / 2:  # the page's margin, or a centered page
        indented = [False] * len(printed)
    lines: list[_Line] = []
    for deep, group in itertools.groupby(zip(indented, printed, strict=True), key=lambda pair: pair[0]):
        run = [line for _, line in group]
        listing = deep and len(run) > 1 and any(_CODE_MARK.search(line) for line in run)
        lines += [_line(line, listing) for line in run]
    return [_beside(lines, index) for index in range(len(lines))]


def _beside(lines: list[_Line], index: int) -> _Line:
    """Return a line, its kind corrected by its neighbors': code is all around it, or it is the only row of its table."""
    line = lines[index]
    around = [other.kind for other in (*lines[max(index - 1, 0) : index], *lines[index + 1 : index + 2])]
    if around == ["code", "code"]:
        return line._replace(kind="code")
    if line.kind == "row" and "row" not in around:
        return line._replace(kind="prose")
    return line


def _with_ligature(match: re.Match[str]) -> str:
    """Return a word one of whose glyphs is lost, with the f-ligature that alone makes it a word of English."""
    head, tail = match["head"], match["tail"]
    if len(head + tail) < 2:
        return match[0]
    from simplemma import is_known

    words = [head + ligature + tail for ligature in ("ff", "fi", "fl", "ffi", "ffl")]
    known = [word for word in words if is_known(word, lang="en")]
    return known[0] if len(known) == 1 else match[0]


def _line(printed: str, listing: bool) -> _Line:
    text = " ".join(printed.split())
    if listing or _CODE.search(text):
        return _Line(text, "code")
    if _CONTENTS_ENTRY.search(text):
        return _Line(text, "entry")
    words = text.split()
    numbers = sum(any(map(str.isdigit, word)) for word in words)
    row = (len(words) > 2 and numbers >= 0.4 * len(words)) or len(_WIDE_GAP.findall(printed.strip())) > 1
    return _Line(text, "row" if row else "prose")


def _titled(lines: list[_Line], titles: Collection[str]) -> list[_Line]:
    """Mark the lines that are headings, each with the lines that it runs on over."""
    if not titles:
        return lines
    keys = [squashed(line.text) for line in lines]
    result: list[_Line] = []
    index = 0
    while index < len(lines):
        span = next((n for n in (3, 2, 1) if keys[index] and "".join(keys[index : index + n]) in titles), 0)
        if span and not lines[index].text[0].islower():
            result.append(_Line(" ".join(line.text for line in lines[index : index + span]), "title"))
        else:
            result.append(lines[index])
            span = 1
        index += span
    return result


def _without_running_lines(pages: list[list[_Line]], titles: Sequence[Collection[str]]) -> list[list[_Line]]:
    """Drop lines at a page's edges that stand there on at least two near pages as well, numbers aside.

    Page numbers go too, and at the top the repeated title of the section that runs on.
    """
    tops = [{_shape(line.text) for line in lines[:_EDGE_LINES]} for lines in pages]
    bottoms = [{_shape(line.text) for line in lines[-_EDGE_LINES:]} for lines in pages]
    offsets = [
        {number - index for line in lines[:_EDGE_LINES] + lines[-_EDGE_LINES:] if (number := _page_number(line.text))}
        for index, lines in enumerate(pages)
    ]

    def drops(line: _Line, index: int, edges: list[set[str]], rest: list[_Line]) -> bool:
        near = [other for other in range(max(0, index - _REACH), min(len(edges), index + _REACH + 1)) if other != index]
        if number := _page_number(line.text):
            match = _PAGE_NUMBER.fullmatch(line.text)
            if (match and match["word"]) or any(number - index in offsets[other] for other in near):
                return True
        key = squashed(line.text)
        if line.kind == "title":  # the heading itself, where its section begins, unless it comes again below
            return any(squashed(other.text) == key for other in rest)
        if edges is tops and key in told:
            return True
        shape = _shape(line.text)
        return sum(shape in edges[other] for other in near) >= 2

    kept = []
    told: set[str] = set()  # the titles of the pages before
    for index, lines in enumerate(pages):
        first, last = 0, len(lines)
        while first < min(_EDGE_LINES, last) and drops(lines[first], index, tops, lines[first + 1 :]):
            first += 1
        while last > max(first, len(lines) - _EDGE_LINES) and drops(lines[last - 1], index, bottoms, []):
            last -= 1
        kept.append(lines[first:last])
        told.update(titles[index])
    return kept if any(kept) else pages  # where nothing but repeated lines is, they are the text


def _page_number(line: str) -> int | None:
    """Return the number of a line that is a page number by its shape: "12", "xii", "- 12 -", "Page 3 of 10"."""
    match = _PAGE_NUMBER.fullmatch(line) if len(line) < 24 else None
    if not match:
        return None
    number = match["number"].lower()
    if number.isdecimal():
        return int(number)
    if not _ROMAN.fullmatch(number):
        return None
    values = [_ROMAN_VALUES[letter] for letter in number]
    return sum(-value if value < max(values[place:]) else value for place, value in enumerate(values))


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", line).lower()


def _compound_words(pages: list[list[_Line]]) -> set[str]:
    """Return the hyphenated words that stand inside lines: evidence that a hyphen at a line's end is a real one."""
    return {word.lower() for lines in pages for line in lines for word in re.findall(r"\w+-\w+", line.text)}


def _glossary(pages: list[list[_Line]]) -> list[set[int]]:
    """Return for each page the places of lines with which an entry of a glossary begins, as in "page table: what maps ...".

    A line of prose may begin like that, too; entries come in alphabetical order, at least two of them near each other and
    more of them than of such lines. They are as long as lines of prose, so that nothing else tells where one ends.
    """
    entries: list[set[int]] = [set() for _ in pages]
    run: list[tuple[int, int, str]] = []  # page, line, term

    def close() -> None:
        ordered = _longest_rise([term for *_, term in run])
        if len(ordered) > max(1, len(run) / 2):
            for chosen in ordered:
                page, line, _ = run[chosen]
                entries[page].add(line)
        run.clear()

    since = 0  # lines since the last that may begin an entry
    for number, lines in enumerate(pages):
        for place, line in enumerate(lines):
            since += 1
            term = defined_term(line.text) if line.kind == "prose" else None
            if line.kind == "title" or since > _LONGEST_DEFINITION:
                close()
            if term:
                run.append((number, place, term))
                since = 0
    close()
    return entries


def _longest_rise(values: Sequence[str]) -> list[int]:
    """Return the places of the longest strictly rising subsequence of `values`."""
    ends: list[int] = []  # of each length so far, the place where the one that ends lowest ends
    before: list[int] = []
    for place, value in enumerate(values):
        length = bisect_left(ends, value, key=values.__getitem__)
        before.append(ends[length - 1] if length else -1)
        ends[length : length + 1] = [place]
    rise: list[int] = []
    place = ends[-1] if ends else -1
    while place >= 0:
        rise.append(place)
        place = before[place]
    return rise[::-1]


def _paragraphs(lines: list[_Line], compounds: set[str], entries: Collection[int] = ()) -> str:
    """Join a page's lines to paragraphs; `entries` are the places of lines that begin one, whatever they look like."""
    if not lines:
        return ""
    lengths = sorted(len(line.text) for line in lines)
    full = lengths[int(0.8 * (len(lengths) - 1))]  # what a full line holds on this page, short ones and outliers aside
    apart = _ragged(lines, full)
    text = lines[0].text
    for index, (previous, line) in enumerate(itertools.pairwise(lines)):
        following = line.text
        begins = index + 1 in entries or (index in apart and index + 1 in apart)
        if begins or _ends_paragraph(previous, line, full):
            text += "\n" + following
        elif hyphen := _BROKEN_WORD.search(text, max(0, len(text) - len(previous.text))):
            tail = re.split(r"\W", following, maxsplit=1)[0]
            whole = f"{hyphen[1]}-{tail}".lower() in compounds
            keep = whole or hyphen[1][-1].isdigit() or not following[0].islower()  # "a 20-bit number"
            text = (text if keep else text[:-1]) + following
        else:
            text += ("" if is_unspaced(text[-1]) and is_unspaced(following[0]) else " ") + following
    return text


def _ends_paragraph(previous: _Line, line: _Line, full: int) -> bool:
    if {previous.kind, line.kind} != {"prose"}:
        return True
    if _LIST_ITEM.match(line.text) or _NUMBERED_HEADING.match(line.text):
        return True
    if len(previous.text) >= 0.75 * full:
        return False
    # A short line ends something, unless the sentence plainly runs on in lower case.
    return previous.text[-1] in ".!?:;…。！？" or not line.text[0].islower()


def _ragged(lines: list[_Line], full: int) -> set[int]:
    """Return the places of short lines in a row, three or more, of words and of uneven length: a table without rules.

    Text set around a picture is short as well, but its lines are about as long as each other.
    """

    def may_be_row(line: _Line) -> bool:
        return len(line.text) < 0.75 * full and " " in line.text and line.text[-1] not in ".,;-"

    apart: set[int] = set()
    start = 0
    for short, group in itertools.groupby(lines, key=may_be_row):
        lengths = [len(line.text) for line in group]
        if short and len(lengths) > 2 and sum(length > 0.8 * max(lengths) for length in lengths) < 0.6 * len(lengths):
            apart.update(range(start, start + len(lengths)))
        start += len(lengths)
    return apart


def is_unspaced(character: str) -> bool:
    """Say whether `character` belongs to a script written without spaces; Korean is wide, but has them."""
    return unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3"
