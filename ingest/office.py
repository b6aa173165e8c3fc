"""One Word document or PowerPoint presentation in, its text and headings out; nothing in a file is run or fetched."""

import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingest.document import DocumentText
from ingest.errors import UnreadableDocumentError, brief
from ingest.markup import PageText, some_text

if TYPE_CHECKING:
    from pptx.slide import Slide

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # begins the file formats from before 2007, and every encrypted file of today's
_MOST_XML = 200_000_000  # bytes; a book of a thousand pages has some ten million

# Where pages end, as characters that no XML can hold: a break the author set, and one where Word's layout had a page's end.
_BREAK, _RENDERED = "\f", "\x1f"
_SKIPPED = frozenset({f"{_W}{name}" for name in ("del", "moveFrom", "txbxContent", "pPr", "rPr", "instrText", "delText")})
_FORMULA_SIGNS = {f"{_M}sup": "^", f"{_M}sub": "_", f"{_M}den": "/"}
_ROW_HEIGHT = 230_000  # of 914,400 to the inch: shapes whose upper edges differ by less stand side by side


def read_docx(path: Path) -> DocumentText:
    """Read the Word document at `path`: paragraphs, tables, text boxes and formulas, in their order.

    Its pages are those that page breaks and Word's last layout mark; without any such mark all is page 1 of a document
    without pages. Raises UnreadableDocumentError with status "damaged", "encrypted" or "no text".
    """
    return _read(path, "a Word document (.docx)", _docx)


def read_pptx(path: Path) -> DocumentText:
    """Read the PowerPoint presentation at `path`, one page a slide: the title, the shapes as one reads them, the notes.

    Raises UnreadableDocumentError with status "damaged", "encrypted" or "no text".
    """
    return _read(path, "a PowerPoint presentation (.pptx)", _pptx)


def _read(path: Path, kind: str, reader: Callable[[IO[bytes]], DocumentText]) -> DocumentText:
    try:
        with path.open("rb") as file:
            _check_container(file, kind)
            return some_text(reader(file))
    except UnreadableDocumentError:
        raise
    except OSError as error:
        raise UnreadableDocumentError("damaged", f"it cannot be opened ({error.strerror or error})") from error
    except (Exception, RecursionError) as error:
        raise UnreadableDocumentError("damaged", f"it is not {kind}, or damaged ({brief(error)})") from error


def _check_container(file: IO[bytes], kind: str) -> None:
    """Refuse what is no zip file, or one that would fill the memory; leaves `file` at its beginning."""
    if file.read(len(_OLE)) == _OLE:
        if "EncryptedPackage".encode("utf-16-le") in file.read():
            raise UnreadableDocumentError("encrypted", "it is encrypted and needs a password")
        raise UnreadableDocumentError("damaged", f"it is not {kind} but in an older format: save it as one")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UnreadableDocumentError("damaged", f"it is not {kind}") from error
    # A member's name does not say whether it is read as XML. Pictures and films, whatever their names, hardly shrink.
    if sum(member.file_size for member in members if _may_be_xml(member)) > _MOST_XML:
        raise UnreadableDocumentError("damaged", f"its contents unpack to more than {_MOST_XML // 1_000_000} MB")
    file.seek(0)


def _may_be_xml(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith((".xml", ".rels", ".vml")) or member.file_size > 10 * member.compress_size


def _docx(file: IO[bytes]) -> DocumentText:
    import docx

    document = docx.Document(file)
    body: Any = document.element.body
    _choose_alternatives(body)
    return _WordPages(body, _style_levels(document.styles.element)).document()


class _WordPages:
    """Puts a Word document's text together page by page."""

    def __init__(self, body: Any, style_levels: dict[str, int]) -> None:
        self._style_levels = style_levels
        self._pages = [PageText()]
        self._marked = False  # whether any page's end was seen
        self._fresh = False  # whether the page began with a break, not from Word's layout, and holds nothing yet
        # A section says about itself whether it begins on a new page: the mark at one's end belongs to the next one.
        sections = [section for section in body.iter(f"{_W}sectPr") if section.getparent().tag != f"{_W}sectPrChange"]
        self._next_section = dict(itertools.pairwise(sections))
        self._add_blocks(body)

    def document(self) -> DocumentText:
        pages = tuple(page.page(number, "docx") for number, page in enumerate(self._pages, start=1))
        return DocumentText(pages, unit="page" if self._marked else "")

    def _add_blocks(self, container: Any) -> None:
        for block in _content(container):
            if block.tag == f"{_W}p":
                self._add_paragraph(block)
            elif block.tag == f"{_W}tbl":
                self._add_table(block)

    def _add_paragraph(self, paragraph: Any) -> None:
        properties = paragraph.find(f"{_W}pPr")
        if properties is not None and _is_on(properties.find(f"{_W}pageBreakBefore")):
            self._begin_page()
        text = _text(paragraph)
        if level := self._level(properties):
            self._add_unparted(text, lambda title: self._pages[-1].add_heading(level, title))
        else:
            for part in re.split(f"([{_BREAK}{_RENDERED}])", text):
                if part in (_BREAK, _RENDERED):
                    self._end_page(part)
                else:
                    self._add(part, self._pages[-1].add)
        for box in _outermost(paragraph, f"{_W}txbxContent"):
            self._add_blocks(box)
        section = properties.find(f"{_W}sectPr") if properties is not None else None
        if section is not None and section in self._next_section:
            kind = self._next_section[section].find(f"{_W}type")
            if kind is None or kind.get(f"{_W}val") not in ("continuous", "nextColumn"):
                self._begin_page()

    def _add_table(self, table: Any) -> None:
        for row in (row for row in _content(table) if row.tag == f"{_W}tr"):
            cells = [cell for cell in _content(row) if cell.tag == f"{_W}tc"]
            if len(cells) == 1:  # a frame around paragraphs, code, or a whole page
                self._add_blocks(cells[0])
                continue
            texts = [" ".join(map(_text, cell.iter(f"{_W}p"))) for cell in cells]
            # A row that goes over a page's end has a mark in each cell.
            most = max((re.sub(f"[^{_BREAK}{_RENDERED}]", "", text) for text in texts), key=len, default="")
            first = most if any(text.lstrip(" \n")[:1] in (_BREAK, _RENDERED) for text in texts if text.strip()) else ""
            row_text = _row([re.sub(f"[{_BREAK}{_RENDERED}]", " ", text) for text in texts])
            self._add_unparted(first + row_text + most[len(first) :], lambda text: self._pages[-1].add(text))

    def _add_unparted(self, text: str, add: Callable[[str], None]) -> None:
        """Add what must not be parted to the page that it begins on."""
        marks = f"{_BREAK}{_RENDERED}"
        content = text.lstrip(marks + " \n")
        for mark in text[: len(text) - len(content)]:
            self._end_page(mark)
        self._add(re.sub(f"[{marks}]", " ", content).replace("\n", " "), add)
        for mark in content:
            self._end_page(mark)

    def _add(self, text: str, add: Callable[[str], None]) -> None:
        if text.strip():
            add(text)
            self._fresh = False

    def _end_page(self, mark: str) -> None:
        """End the page if `mark` is a break's; Word's layout marks the page's end behind the author's break once more."""
        if mark == _RENDERED and self._fresh:
            self._fresh = False
        elif mark in (_BREAK, _RENDERED):
            self._pages.append(PageText())
            self._marked, self._fresh = True, mark == _BREAK

    def _begin_page(self) -> None:
        """End the page for what must stand at the top of one, unless nothing stands on it yet."""
        if self._pages[-1]:
            self._end_page(_BREAK)

    def _level(self, properties: Any) -> int:
        """Return the level of the heading that has these paragraph properties, 0 where it is none."""
        if properties is None:
            return 0
        outline = _outline_level(properties)
        if outline is not None:
            return outline
        style = properties.find(f"{_W}pStyle")
        return self._style_levels.get(style.get(f"{_W}val"), 0) if style is not None else 0


def _style_levels(styles: Any) -> dict[str, int]:
    """Return the levels of the styles that make headings, by the styles' ids; styles inherit from others."""
    own: dict[str, int | None] = {}
    parents: dict[str, str] = {}
    for style in styles.iter(f"{_W}style"):
        key = style.get(f"{_W}styleId")
        name, parent, properties = (style.find(f"{_W}{tag}") for tag in ("name", "basedOn", "pPr"))
        own[key] = _outline_level(properties) if properties is not None else None
        # Word writes the names of its own styles in English, whatever its user's language.
        named = (name.get(f"{_W}val") or "").lower() if name is not None else ""
        if own[key] is None and (match := re.fullmatch(r"heading ([1-9])|title", named)):
            own[key] = int(match[1] or 1)
        if parent is not None:
            parents[key] = parent.get(f"{_W}val")
    levels = {}
    for key in own:
        seen: set[str] = set()
        ancestor: str | None = key
        while ancestor in own and own[ancestor] is None and ancestor not in seen:
            seen.add(ancestor)
            ancestor = parents.get(ancestor)
        levels[key] = own.get(ancestor or "") or 0
    return levels


def _outline_level(properties: Any) -> int | None:
    """Return 1 to 9 for a heading, 0 for what is said to be none, None where nothing is said."""
    outline = properties.find(f"{_W}outlineLvl")
    value = outline.get(f"{_W}val") or "" if outline is not None else ""
    if not re.fullmatch("[0-9]", value):
        return None
    return 0 if value == "9" else int(value) + 1


def _is_on(switch: Any) -> bool:
    return switch is not None and switch.get(f"{_W}val", "true") not in ("0", "false", "off")


def _pptx(file: IO[bytes]) -> DocumentText:
    import pptx

    pages = []
    for number, slide in enumerate(pptx.Presentation(file).slides, start=1):
        page = PageText()
        _add_slide(page, slide)
        pages.append(page.page(number, "pptx"))
    return DocumentText(tuple(pages), unit="slide")


def _add_slide(page: PageText, slide: "Slide") -> None:
    from pptx.enum.shapes import PP_PLACEHOLDER

    titles = (PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE, PP_PLACEHOLDER.VERTICAL_TITLE)
    running = (PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.HEADER)
    _choose_alternatives(slide.element)
    others = []
    for shape in slide.shapes:
        kind = shape.placeholder_format.type if shape.is_placeholder else None
        if kind in titles:
            page.add_heading(1, " ".join(map(_text, shape.element.iter(f"{_A}p"))))
        elif kind not in running:
            others.append(shape)
    _add_shapes(page, others, slide.part)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None:
        for paragraph in notes.paragraphs:
            page.add(_text(paragraph._p))


def _add_shapes(page: PageText, shapes: list[Any], part: Any) -> None:
    """Add the shapes' text from top to bottom, and from left to right where shapes stand side by side."""
    rows: list[list[Any]] = []
    for shape in sorted(shapes, key=lambda shape: shape.top or 0):
        if not rows or (shape.top or 0) - (rows[-1][0].top or 0) > _ROW_HEIGHT:
            rows.append([])
        rows[-1].append(shape)
    for shape in (shape for row in rows for shape in sorted(row, key=lambda shape: shape.left or 0)):
        element = shape.element
        if hasattr(shape, "shapes"):
            _add_shapes(page, list(shape.shapes), part)
        elif element.find(f".//{_A}tbl") is not None:
            for row in element.iter(f"{_A}tr"):
                cells = [cell for cell in row if cell.tag == f"{_A}tc"]
                if len(cells) == 1:
                    _add_paragraphs(page, cells[0])
                else:
                    page.add(_row([" ".join(map(_text, cell.iter(f"{_A}p"))) for cell in cells]))
        elif (diagram := element.find(f".//{_DIAGRAM}relIds")) is not None:
            _add_diagram(page, part, diagram.get(f"{_RELATION}dm"))
        else:
            _add_paragraphs(page, element)


def _add_diagram(page: PageText, part: Any, relation: str) -> None:
    """Add the text of a SmartArt drawing, which a part of its own holds."""
    from pptx.oxml import parse_xml

    try:
        points = parse_xml(part.related_part(relation).blob).iter(f"{_DIAGRAM}pt")
    except (KeyError, ValueError, SyntaxError):  # a drawing that is broken must not cost the slides
        return
    for point in points:
        if point.get("type", "node") == "node":
            _add_paragraphs(page, point)


def _add_paragraphs(page: PageText, element: Any) -> None:
    for paragraph in element.iter(f"{_A}p"):
        page.add(_text(paragraph))


def _choose_alternatives(root: Any) -> None:
    """Where a file says one thing twice, for newer and for older programs, keep the newer program's content only."""
    for alternatives in list(root.iter(f"{_MC}AlternateContent")):
        chosen = next((child for child in alternatives if child.tag == f"{_MC}Choice"), None)
        if chosen is None:
            chosen = alternatives.find(f"{_MC}Fallback")
        parent = alternatives.getparent()
        place = parent.index(alternatives)
        parent[place : place + 1] = list(chosen) if chosen is not None else []


def _content(container: Any) -> Iterator[Any]:
    """Yield the elements in `container`, without what only wraps them: content controls, tracked insertions."""
    for child in container:
        if child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins", f"{_W}moveTo"):
            yield from _content(child)
        else:
            yield child


def _outermost(element: Any, tag: str) -> Iterator[Any]:
    """Yield the elements with `tag` under `element`, none that is inside of another."""
    for child in element:
        if child.tag == tag:
            yield child
        else:
            yield from _outermost(child, tag)


def _row(cells: list[str]) -> str:
    texts = [" ".join(cell.split()) for cell in cells]
    return " | ".join(texts) if any(texts) else ""


def _text(element: Any) -> str:
    """Return the text of a paragraph, or of something in it; a newline is a line break that its author set.

    Formulas are written on one line: a/b, x^2, a_n, √x.
    """
    match element.tag:
        case tag if not isinstance(tag, str) or tag in _SKIPPED:  # a comment's or an entity's tag is a function
            return ""
        case tag if tag in (f"{_W}t", f"{_A}t", f"{_M}t"):
            return str(element.text or "").replace("\n", " ")
        case tag if tag in (f"{_W}tab", f"{_W}ptab"):
            return " "
        case tag if tag in (f"{_W}br", f"{_W}cr", f"{_A}br"):
            return _BREAK if element.get(f"{_W}type") == "page" else "\n"
        case tag if tag == f"{_W}lastRenderedPageBreak":
            return _RENDERED
        case tag if tag == f"{_W}noBreakHyphen":
            return "-"
    text = "".join(map(_text, element))
    if element.tag.startswith(_M):
        return _formula(element, text)
    return text


def _formula(element: Any, text: str) -> str:
    operand = text if len(text.strip()) <= 1 else f"({text})"
    if element.tag in _FORMULA_SIGNS:
        return _FORMULA_SIGNS[element.tag] + operand if text.strip() else ""
    if element.tag == f"{_M}num":
        return operand
    if element.tag == f"{_M}rad":
        return f"√{operand}"
    if element.tag == f"{_M}d":
        return _sign(element, "dPr", "begChr", "(") + text + _sign(element, "dPr", "endChr", ")")
    if element.tag == f"{_M}nary":
        return _sign(element, "naryPr", "chr", "∫") + text
    return text


def _sign(element: Any, properties: str, name: str, default: str) -> str:
    sign = element.find(f"{_M}{properties}/{_M}{name}")
    return default if sign is None else str(sign.get(f"{_M}val") or "")
