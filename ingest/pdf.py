"""One PDF in, its pages as clean text and its headings out; what cannot be read says why."""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ingest import ocr as tesseract
from ingest.clean import clean_pages, squashed
from ingest.document import DocumentText, Heading, Page, Reader
from ingest.errors import UnreadableDocumentError, brief
from ingest.quality import score

if TYPE_CHECKING:
    from pypdf import PdfReader

_GOOD = 0.97  # below this score pdfium, which takes a tenth of pypdf's time, is asked as well
_HOPELESS = 0.4  # ... and below this one, OCR where it is wanted
_DEEPEST = 6  # levels of headings
_MOST_BOOKMARKS = 20_000
_REACH = 4  # a running head comes again within this many pages
_LONGEST = 160  # characters of a heading
_LONGEST_BOLD = 70  # ... that only its boldness shows
_LARGER = 1.12  # times the body's size: a heading's letters

_LABEL = r"(?:chapter|part|appendix|unit|lecture|lesson|module|section|kapitel|teil|chapitre|capítulo|capitolo|глава|часть)"
_LABEL_LINE = re.compile(rf"{_LABEL}\s+(?:\d{{1,3}}|[ivxlc]{{1,7}}|[a-z])[.:]?", re.IGNORECASE)
_NUMBER = re.compile(
    rf"(?:(?:{_LABEL}\s+)?(?:\d+(?:\.\d+)*|[a-z](?:\.\d+)+)(?:[.:)]|(?=\s))|(?:{_LABEL}\s+)?[ivxlc]+[.:)])\s*[-–—:]?\s*",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?P<number>\d{1,3}(?:\.\d{1,2}){1,4})\.?\s+(?P<title>\S.*)")
_CHAPTER = re.compile(
    rf"(?:{_LABEL}\s+(?:\d{{1,3}}|(?-i:[IVXLC]{{1,7}}|[A-Z]))(?:[.:—–-]|(?=\s)|$)|第[\d一二三四五六七八九十百]+[章讲講课課編编部])\s*(?P<title>.*)",
    re.IGNORECASE,
)
_CAPTION = re.compile(
    r"(?:fig(?:ure|\.)?|table|tab\.|abb(?:ildung|\.)|tabelle|listing|equation|tableau)\s*[\dA-Z]", re.IGNORECASE
)
_ENDS_IN_NUMBER = re.compile(r"\S[ .…\t]+[\divxlc]{1,5}$")
_NO_HEADING = re.compile(
    r"(?:page|slide|folie|seite|diapositiva)?\W*\d*|_\w+|untitled.*|bookmarks?\W*\d*|.*\.(?:pdf|docx?|pptx?|tex|indd|dvi)",
    re.IGNORECASE,
)
_BOLD = re.compile(r"bold|black|heavy|semibold|demi|\bCMBX|\bSFBX|-Bd|,B", re.IGNORECASE)


def read_pdf(
    path: Path,
    *,
    password: str = "",
    ocr: bool = False,
    on_page: Callable[[int, int], None] = lambda _done, _total: None,
) -> DocumentText:
    """Read every page of the PDF at `path`: by pypdf, and by pdfium where pypdf fails or its text looks broken.

    `password` opens an encrypted file; an empty one is tried in any case. With `ocr`, pages that have no usable text are
    rendered and read by tesseract. `on_page` is told after each page how many of how many are done.

    Raises UnreadableDocumentError with status "damaged", "encrypted" or "no text", and UserError where `ocr` is asked
    for and cannot run. A page that fails on its own is returned empty and listed in `unreadable_pages`. Not for several
    threads at a time: pdfium is not safe for them.
    """
    if ocr:
        tesseract.require()
    # pypdf reports each oddity it repairs; what matters to the user is said by the errors below.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnreadableDocumentError("damaged", f"it cannot be opened ({error.strerror or error})") from error
    with file, closing(_File(file, path, password)) as pdf:
        raw = []
        for index in range(pdf.count):
            raw.append(pdf.read(index, ocr))
            on_page(index + 1, pdf.count)
        texts, headings = _with_headings([page.text for page in raw], pdf.pdfium)
    pages = tuple(
        Page(number, text, found, page.reader if text else "")
        for number, (text, found, page) in enumerate(zip(texts, headings, raw, strict=True), start=1)
    )
    if not any(page.text for page in pages):
        advice = "OCR found none either" if ocr else "scanned? run again with --ocr"
        raise UnreadableDocumentError("no text", f"no page has text ({advice})" if pages else "it has no pages")
    return DocumentText(pages, tuple(page.number for page, read in zip(pages, raw, strict=True) if read.failed))


class _Raw(NamedTuple):
    text: str
    reader: Reader
    failed: bool


class _File:
    """A PDF in both readers; either may be missing, not both."""

    def __init__(self, file: IO[bytes], path: Path, password: str) -> None:
        import pypdf

        self.pdfium, locked = _open_pdfium(path, password)
        self._pypdf: PdfReader | None = None
        self.count = len(self.pdfium) if self.pdfium is not None else 0
        reason = ""
        try:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not any(reader.decrypt(word) for word in dict.fromkeys(("", password))):
                locked = True
            else:
                count = len(reader.pages)
                if count or self.pdfium is None:
                    self._pypdf, self.count = reader, count
        except (Exception, RecursionError) as error:  # noqa: BLE001 -- pypdf fails in many ways on damaged files
            reason = brief(error)
        if self._pypdf is None and self.pdfium is None:
            if locked and password:
                raise UnreadableDocumentError("encrypted", "it is encrypted, and the given password does not open it")
            if locked:
                raise UnreadableDocumentError("encrypted", "it is encrypted; give its password with --password")
            raise UnreadableDocumentError("damaged", f"it is not a readable PDF ({reason})")

    def read(self, index: int, ocr: bool) -> _Raw:
        """Return the best text of page `index`, from 0, that a reader gives."""
        best = _Raw("", "", failed=True)
        quality = 0.0
        if self._pypdf is not None:
            text = _pypdf_text(self._pypdf, index)
            if text is not None:
                best, quality = _Raw(text, "pypdf", failed=False), score(text)
        if self.pdfium is None or index >= len(self.pdfium) or quality >= _GOOD:
            return best
        other = _pdfium_text(self.pdfium, index)
        if other is not None:
            found = score(other)
            if self._pypdf is None or _is_better(other, found, best.text, quality):
                best, quality = _Raw(other, "pdfium", failed=False), found
        if ocr and quality < _HOPELESS:
            seen = _ocr_text(self.pdfium, index)
            if seen is None:
                best = best._replace(failed=not best.text.strip())
            elif score(seen) > quality:
                best = _Raw(seen, "ocr", failed=False)
        return best

    def close(self) -> None:
        if self.pdfium is not None:
            self.pdfium.close()


def _is_better(other: str, found: float, text: str, quality: float) -> bool:
    """Say whether `other`, which scores `found`, replaces `text`: it is cleaner, and not because most of it is missing."""
    return found > quality and (quality < _HOPELESS or len("".join(other.split())) > 0.6 * len("".join(text.split())))


def _pypdf_text(reader: "PdfReader", index: int) -> str | None:
    try:
        return reader.pages[index].extract_text()
    except (Exception, RecursionError):  # noqa: BLE001 -- one bad page must not cost the others
        return None


def _open_pdfium(path: Path, password: str) -> tuple[Any, bool]:
    """Return the file as pdfium opens it, None where it cannot, and whether a password is what it lacks."""
    import pypdfium2

    locked = False
    for word in dict.fromkeys((password, "")):
        try:
            document = pypdfium2.PdfDocument(path, password=word or None)
        except (pypdfium2.PdfiumError, OSError, ValueError) as error:
            locked = getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
        else:
            return document, False
    return None, locked


def _pdfium_text(document: Any, index: int) -> str | None:
    """Return a page's text as pdfium reads it, in pypdf's conventions; None where the page cannot be loaded."""
    import pypdfium2

    try:
        with closing(document[index]) as page, closing(page.get_textpage()) as textpage:
            return "".join(_marked_text(textpage)).replace("\r\n", "\n")
    except pypdfium2.PdfiumError:
        return None


def _marked_text(textpage: Any) -> list[str]:
    """Return the text in parts, with soft hyphens and U+FFFD where pdfium writes U+FFFE for both.

    It writes U+FFFE for a hyphen at a line's end, whose line break it leaves out, and for a glyph without a meaning.
    """
    from pypdfium2 import raw

    text: str = textpage.get_text_range()
    if "\ufffe" not in text and "\x02" not in text:
        return [text]
    parts = []
    unit = 0  # pdfium counts in UTF-16
    for part in re.split("([\ufffe\x02])", text):
        if part in ("\ufffe", "\x02") and part:
            hyphen = raw.FPDFText_IsHyphen(textpage, raw.FPDFText_GetCharIndexFromTextIndex(textpage, unit)) == 1
            parts.append("\u00ad\n" if hyphen else "\ufffd")
        else:
            parts.append(part)
        unit += _units(part)
    return parts


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _ocr_text(document: Any, index: int) -> str | None:
    import pypdfium2

    try:
        with closing(document[index]) as page:
            return tesseract.read_page(page)
    except pypdfium2.PdfiumError:
        return None


@dataclass(frozen=True)
class _Wanted:
    """A heading that should stand on a page; `sure` ones go to the page's start where the text does not show them."""

    title: str
    level: int
    sure: bool

    def spellings(self) -> set[str]:
        """Return what its line may read: outlines often have numbers that pages have not, or set apart."""
        bare = squashed(_NUMBER.sub("", self.title, count=1)) if self.sure and _NUMBER.match(self.title) else ""
        return {squashed(self.title), *([bare] if len(bare) > 2 else [])} - {""}


def _with_headings(raw: list[str], pdfium: Any) -> tuple[list[str], list[tuple[Heading, ...]]]:
    """Return the pages' clean texts and headings: from the outline, else from the sizes of letters, else from shape."""
    wanted: list[list[_Wanted]] = [[] for _ in raw]
    if pdfium is not None:
        outline = _from_outline(pdfium, len(raw))
        wanted = (_fits(outline, raw) and outline) or _from_sizes(pdfium, len(raw)) or outline or wanted
    texts = clean_pages(raw, [frozenset().union(*(item.spellings() for item in page)) for page in wanted])
    headings = [_placed(text, page) for text, page in zip(texts, wanted, strict=True)]
    if not any(headings):
        headings = [_from_shape(text) for text in texts]
    return texts, headings


def _fits(outline: list[list[_Wanted]], raw: list[str]) -> bool:
    """Say whether the titles of an outline are words of the pages it leads to."""
    shown = []
    for text, page in zip(raw, outline, strict=False):
        key = squashed(text) if page else ""
        shown += [any(own in key for own in item.spellings()) for item in page if key]
    return len(shown) < 4 or sum(shown) > 0.2 * len(shown)


def _from_outline(pdfium: Any, count: int) -> list[list[_Wanted]]:
    """Return each page's entries of the document's outline; nothing where there is no usable one."""
    import pypdfium2

    found: list[tuple[int, int, str]] = []  # level from 0, page, title
    try:
        for bookmark in itertools.islice(pdfium.get_toc(), _MOST_BOOKMARKS):
            target = bookmark.get_dest()
            index = target.get_index() if target else None
            if index is not None and index < count:
                found.append((bookmark.level, index, _clean_title(bookmark.get_title())))
    except (pypdfium2.PdfiumError, UnicodeError):  # what was found so far is right
        pass
    entries = [entry for entry in found if not _NO_HEADING.fullmatch(entry[2])]
    told = len({index for _, index, _ in entries}) > 1 or count <= 3  # an outline that leads to one page tells nothing
    if not told or 2 * len(entries) < len(found) or not entries:
        return []
    roots = [title for level, _, title in entries if level == 0]
    if len(roots) > 1 and len(set(roots)) == 1:  # the document's own title, once for the cover and once for the rest
        entries = [(level - 1, index, title) for level, index, title in entries if level > 0] or entries
    top = min(level for level, _, _ in entries)
    pages: list[list[_Wanted]] = [[] for _ in range(count)]
    for level, index, title in entries:
        pages[index].append(_Wanted(title, min(level - top + 1, _DEEPEST), sure=True))
    return pages


class _Line(NamedTuple):
    text: str
    size: float  # points; 0 where letters of one line differ
    bold: bool


def _from_sizes(pdfium: Any, count: int) -> list[list[_Wanted]]:
    """Return each page's lines in larger or bold print; nothing where print tells no headings."""
    pages = [_sized_lines(pdfium, index) for index in range(min(count, len(pdfium)))]
    weights: Counter[float] = Counter()
    for line in itertools.chain.from_iterable(pages):
        weights[line.size] += len(line.text) if line.size else 0
    if not weights:
        return []
    body = weights.most_common(1)[0][0]
    groups = [_large_lines(lines, body) for lines in pages]
    groups += [[] for _ in range(count - len(pages))]
    keys = [{squashed(line.text) for line in page} for page in groups]
    for index, page in enumerate(groups):
        before, after = keys[max(0, index - _REACH) : index], keys[index + 1 : index + 1 + _REACH]

        def runs(line: _Line, before: list[set[str]] = before, after: list[set[str]] = after) -> bool:
            key = squashed(line.text)
            return any(key in other for other in before) and sum(key in other for other in before + after) > 1

        groups[index] = [line for line in page if not runs(line)]
    found = list(itertools.chain.from_iterable(groups))
    if len(found) > 0.3 * sum(map(len, pages)) and len(found) > count:
        return []  # what was taken for the body's size is not
    sizes: list[float] = []  # one for each level; sizes within a twentieth are the same
    for size in sorted({line.size for line in found}, reverse=True):
        if not sizes or size < 0.95 * sizes[-1]:
            sizes.append(size)

    def level(line: _Line) -> int:
        return min(sum(size > line.size / 0.95 for size in sizes) + 1, _DEEPEST)

    return [[_Wanted(line.text, level(line), sure=False) for line in page] for page in groups] if found else []


def _sized_lines(pdfium: Any, index: int) -> list[_Line]:
    import pypdfium2

    try:
        with closing(pdfium[index]) as page, closing(page.get_textpage()) as textpage:
            lines = []
            unit = 0
            for text in textpage.get_text_range().split("\r\n"):
                if text.strip():
                    lines.append(_measured(textpage, text, unit))
                unit += _units(text) + 2
            return lines
    except pypdfium2.PdfiumError:
        return []


def _measured(textpage: Any, text: str, start: int) -> _Line:
    """Return the line with its size in points and whether it is bold, as three of its letters tell."""
    from ctypes import byref, c_int, create_string_buffer

    from pypdfium2 import raw

    letters = [place for place, character in enumerate(text) if not character.isspace()]
    chosen = [letters[min(int(share * len(letters)), len(letters) - 1)] for share in (0, 0.5, 1)]
    sizes = set()
    bold = len(text) <= _LONGEST_BOLD
    matrix = raw.FS_MATRIX()
    name = create_string_buffer(100)
    for place in chosen:
        character = raw.FPDFText_GetCharIndexFromTextIndex(textpage, start + _units(text[:place]))
        if raw.FPDFText_GetMatrix(textpage, character, byref(matrix)):
            scale = (matrix.c**2 + matrix.d**2) ** 0.5
            sizes.add(round(2 * scale * raw.FPDFText_GetFontSize(textpage, character)) / 2)
        if bold:
            raw.FPDFText_GetFontInfo(textpage, character, name, 100, byref(c_int()))
            bold = _BOLD.search(name.value.decode("latin-1")) is not None
    return _Line(text, min(sizes) if sizes and max(sizes) < 1.1 * min(sizes) else 0.0, bold)


def _large_lines(lines: list[_Line], body: float) -> list[_Line]:
    """Return a page's headings by print, those of several lines put together."""
    if _is_contents([line.text for line in lines]):
        return []
    found: list[_Line] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        end = index + 1
        if line.size >= _LARGER * body:
            while end < len(lines) and _runs_on(lines[end - 1], lines[end], body):
                end += 1
            title = " ".join(part.text for part in lines[index:end])
            large = max(part.size for part in lines[index:end])
            if end - index <= 3 and _is_title(title):
                found.append(_Line(_clean_title(title), large, line.bold))
        elif line.size >= 0.95 * body and line.bold and _stands_alone(lines, index) and _is_title(line.text):
            found.append(_Line(_clean_title(line.text), line.size, bold=True))
        index = end
    return found


def _runs_on(line: _Line, following: _Line, body: float) -> bool:
    if _LABEL_LINE.fullmatch(line.text.strip()):  # "Chapter 4", and its title in another size
        return following.size >= _LARGER * body
    same = abs(line.size - following.size) < 0.6 and line.bold == following.bold
    return same and not _NUMBER.match(following.text) and line.text.rstrip()[-1] not in ".?!"


def _stands_alone(lines: list[_Line], index: int) -> bool:
    """Say whether a bold line follows a whole sentence and precedes a text of another kind, and is no table's head."""
    before = lines[index - 1].text.rstrip() if index else "."
    if index + 1 == len(lines) or lines[index + 1].bold:
        return False
    return before[-1] in ".!?:)”。" and not lines[index + 1].text.lstrip()[:1].islower()


def _is_contents(lines: Sequence[str]) -> bool:
    """Say whether a page is a table of contents, or an index: its lines end in page numbers."""
    entries = sum(_ENDS_IN_NUMBER.search(line.rstrip()) is not None for line in lines)
    return entries >= 4 and entries >= 0.4 * len(lines)


def _is_title(text: str) -> bool:
    """Say whether a line's words can be a heading: no sentence, caption, list item, formula or entry of a contents."""
    text = text.strip()
    bare = _NUMBER.sub("", text, count=1).strip() or text
    letters = sum(map(str.isalpha, bare))
    return (
        letters >= 2
        and len(text) <= _LONGEST
        and letters >= 0.6 * len("".join(bare.split()))
        and text[-1] not in ".,;"
        and not bare[0].islower()
        and bare[0] not in "•◦▪▸‣●○■□–—-*·“\"'(["
        and re.search(r"[^\W\d_]{3}|[^\W\d_a-zA-Z]{2}", bare) is not None
        and not _CAPTION.match(text)
        and not re.search(r"(?:\.\s?){4,}|://|@|�", text)
    )


def _from_shape(text: str) -> tuple[Heading, ...]:
    """Return the lines of a page's clean text that are headings by their numbers: "3.2 Page tables", "Chapter 4"."""
    lines = text.split("\n")
    if _is_contents(lines):
        return ()
    found = []
    for start, line in zip(_starts(lines), lines, strict=True):
        if len(line) > 100 or not line or line[-1] in ".,;":
            continue
        if numbered := _NUMBERED.fullmatch(line):
            if _is_title(numbered["title"]) and not _ENDS_IN_NUMBER.search(line):
                found.append(Heading(start, min(numbered["number"].count(".") + 1, _DEEPEST), _clean_title(line)))
        elif (chapter := _CHAPTER.fullmatch(line)) and (not chapter["title"] or _is_title(chapter["title"])):
            found.append(Heading(start, 1, _clean_title(line)))
    return tuple(found)


def _placed(text: str, wanted: list[_Wanted]) -> tuple[Heading, ...]:
    """Return `wanted` as headings, each where its title stands in the page's clean `text`."""
    if not wanted:
        return ()
    lines = text.split("\n")
    starts = _starts(lines)
    keys = [squashed(line) for line in lines]
    found: dict[tuple[int, str], Heading] = {}
    reached = 0  # headings come in the order of the text; titles can come twice
    for item in wanted:
        place = _find(keys, item, reached)
        if place is None and not item.sure:
            continue
        if place is not None:
            reached = place + 1
        heading = Heading(starts[place] if place is not None else 0, item.level, item.title)
        found.setdefault((heading.start, squashed(item.title)), heading)
    return tuple(sorted(found.values(), key=lambda heading: heading.start))


def _find(keys: list[str], item: _Wanted, reached: int) -> int | None:
    """Return the line that `item` stands on: the first after those before it, or else any."""
    order = [*range(reached, len(keys)), *range(min(reached, len(keys)))]
    full = squashed(item.title)
    bare = item.spellings() - {full}
    tests: list[Callable[[str], bool]] = [lambda key: key == full, lambda key: key in bare]
    if item.sure and len(full) > 5:
        tests.append(lambda key: key.startswith(full))
    return next((place for test in tests for place in order if test(keys[place])), None)


def _starts(lines: list[str]) -> list[int]:
    return [0, *itertools.accumulate(len(line) + 1 for line in lines)][: len(lines)]


def _clean_title(title: str) -> str:
    """Return a heading in one line, without the dots and the page number that follow it in a table of contents."""
    title = re.sub(r"(?:\s*[.…]){3,}\s*\d*\s*$|(?:\t| {3,})\d+\s*$", "", title)
    title = clean_pages([" ".join(title.split())])[0]
    return title.rstrip(" .")
