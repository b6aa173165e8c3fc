"""One text, Markdown or HTML file in, its text and headings out; nothing in a file is run or fetched."""

import codecs
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.clean import PLAIN, is_unspaced, without_control_characters
from ingest.document import DocumentText, Heading, Page, Reader
from ingest.errors import UnreadableDocumentError, brief

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

# Of the characters that print nothing, only the spaces matter here.
_PLAIN = PLAIN | dict.fromkeys((0x2028, 0x2029, 0x000B, 0x000C, 0x000D), " ") | {0x00AD: ""}
_WRAP = range(40, 121)  # the widths that people and editors wrap text to; longer lines are whole paragraphs
_LIST_ITEM = re.compile(r"(?:[-*+•–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s+")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=[\w\"'-]+[ \t]*:)(?:[ \t]*[^\s][^\n]*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_HEADING_ATTRIBUTES = re.compile(r"\s*\{[#.][^{}]*\}\s*\Z")  # "## Paging {#sec-paging}"
_FORMULAS = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_LONGEST_FORMULA = 4000  # characters; keeps the search for a formula's end short
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE)
# What web pages use. Python knows more names, some of which are no character sets (unicode_escape, punycode).
_WEB_CHARSET = re.compile(
    r"utf-8|windows-125\d|iso-8859-(?:[3-9]|1[0-6])|koi8-[ru]|gbk?|gb2312|gb18030|big5|euc-(?:jp|kr)|shift_jis|iso-2022-jp"
)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_SKIPPED = frozenset({"script", "style", "noscript", "template", "title", "iframe", "nav", "footer", "aside"})
_SKIPPED_CLASSES = frozenset({"headerlink", "katex-html"})  # a heading's "¶"; a formula that stands there as MathML as well
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "head", "header", "hgroup", "hr", "html",
    "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "ul",
    *_HEADINGS,
})
# fmt: on


class PageText:
    """The text of one page while it is put together line by line; what goes in is normalized, empty lines are left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._headings: list[Heading] = []
        self._length = 0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, text: str) -> None:
        """Add the lines of `text`, white space collapsed."""
        for line in text.split("\n"):
            self._append(_one_line(line))

    def add_code(self, text: str) -> None:
        """Add the lines of `text` with the white space inside and before them."""
        for line in text.split("\n"):
            self._append(_normal(line).rstrip())

    def add_heading(self, level: int, title: str) -> None:
        """Add `title` as one line and as a heading; an empty one adds nothing."""
        title = _one_line(title)
        if title:
            start = self._length + (1 if self._lines else 0)
            self._headings.append(Heading(start, max(1, min(level, 6)), title))
            self._append(title)

    def page(self, number: int, reader: Reader) -> Page:
        """Return what was added as page `number`."""
        return Page(number, "\n".join(self._lines), tuple(self._headings), reader)

    def _append(self, line: str) -> None:
        if line:
            self._length += len(line) + (1 if self._lines else 0)
            self._lines.append(line)


def some_text(document: DocumentText) -> DocumentText:
    """Return `document`; raises UnreadableDocumentError with status "no text" where all its pages are empty."""
    if not any(page.text for page in document.pages):
        raise UnreadableDocumentError("no text", "it holds no text")
    return document


def read_text(path: Path) -> DocumentText:
    """Read the plain text at `path`; form feeds part it into pages, otherwise it is page 1 of a document without pages.

    Lines that look wrapped are joined to paragraphs. Raises UnreadableDocumentError with status "damaged" or "no text".
    """
    raw = _decoded(_bytes(path)).removesuffix("\f").split("\f")  # printers' files end in a form feed
    width = _wrap_width("\n".join(raw))
    pages = []
    for number, text in enumerate(raw, start=1):
        page = PageText()
        _add_paragraphs(page, text, width)
        pages.append(page.page(number, "text"))
    return some_text(DocumentText(tuple(pages), unit="page" if len(pages) > 1 else ""))


def read_markdown(path: Path) -> DocumentText:
    """Read the Markdown at `path` as page 1 of a document without pages.

    Links give their text, images their alternative text, formulas stay as they are. Raises UnreadableDocumentError with
    status "damaged" or "no text".
    """
    source = _decoded(_bytes(path))
    if front := _FRONT_MATTER.match(source):
        source = source[front.end() :]
    page = PageText()
    try:
        _add_markdown(page, _markdown_parser().parse(source))
    except (Exception, RecursionError) as error:
        raise UnreadableDocumentError("damaged", f"it is not readable Markdown ({brief(error)})") from error
    return some_text(DocumentText((page.page(1, "markdown"),), unit=""))


def read_html(path: Path) -> DocumentText:
    """Read the HTML at `path` as page 1 of a document without pages; scripts, styles and navigation are left out.

    Raises UnreadableDocumentError with status "damaged" or "no text".
    """
    data = _bytes(path)
    source = _decoded(data, _declared_charset(data))
    page = PageText()
    try:
        _add_html(page, source)
    except (Exception, RecursionError) as error:
        raise UnreadableDocumentError("damaged", f"it is not readable HTML ({brief(error)})") from error
    return some_text(DocumentText((page.page(1, "html"),), unit=""))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableDocumentError("damaged", f"it cannot be opened ({error.strerror or error})") from error


def _decoded(data: bytes, declared: str | None = None) -> str:
    """Return `data` as text with "\\n" line ends; a byte order mark is believed first, then `declared`, then UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    elif declared and not data.startswith(codecs.BOM_UTF8):
        text = data.decode(declared, errors="replace")
    else:
        text = _utf8_or_western(data)
    if "\0" in text:
        raise UnreadableDocumentError("damaged", "it is not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _utf8_or_western(data: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")  # takes any byte


def _declared_charset(data: bytes) -> str | None:
    found = _CHARSET.search(data, 0, 4096)
    name = found[1].decode("ascii").lower() if found else ""
    return name if _WEB_CHARSET.fullmatch(name) else None


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", without_control_characters(text.translate(_PLAIN)))


def _one_line(text: str) -> str:
    return " ".join(_normal(text).split())


def _wrap_width(text: str) -> int:
    """Return the width that the lines of `text` are wrapped to, 0 where they are not."""
    lengths = sorted(len(line) for line in text.split("\n") if line.strip())
    width = lengths[int(0.9 * (len(lengths) - 1))] if lengths else 0  # a few overlong lines (addresses) do not count
    return width if width in _WRAP else 0


def _add_paragraphs(page: PageText, text: str, width: int) -> None:
    """Add plain text: blank lines part paragraphs, lines wrapped at `width` are joined, indented ones stay as they are."""
    paragraph = ""  # the lines joined so far
    last = ""  # the last of them
    hang = 0  # how far the text of the list item that `paragraph` is stands in
    for raw in (*text.split("\n"), ""):
        line = raw.strip()
        indent = len(raw.expandtabs(4)) - len(raw.expandtabs(4).lstrip())
        item = _LIST_ITEM.match(line)
        code = indent >= 4 and not item and indent != hang
        if paragraph and line and not item and not code and _wrapped(last, line, width):
            paragraph = _joined(paragraph, line)
        else:
            page.add(paragraph)
            paragraph = "" if code else line
            hang = indent + item.end() if item else 0
            if code:
                page.add_code(raw)
        last = line


def _wrapped(line: str, following: str, width: int) -> bool:
    """Say whether `line` ends where it does because `following` did not fit in `width` characters."""
    if not width or line[-1] in "{};" or not re.search(r"\w", line) or not re.search(r"\w", following):
        return False
    first_word = following if is_unspaced(following[0]) else following.split()[0]
    runs_on = line[-1] not in ".!?:" and following[0].islower()
    return (runs_on and (line[-1] == "-" or len(line) >= 0.6 * width)) or len(line) + 1 + len(first_word) > 0.9 * width


def _joined(text: str, following: str) -> str:
    hyphenated = re.search(r"\w-\Z", text) is not None
    return text + ("" if hyphenated or (is_unspaced(text[-1]) and is_unspaced(following[0])) else " ") + following


def _markdown_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    # Formulas are no Markdown: their stars, underscores and backslashes mean something else.
    parser.inline.ruler.before("escape", "math", _inline_formula)
    parser.block.ruler.before("fence", "math", _block_formula, {"alt": ["paragraph", "blockquote", "list"]})
    return parser


def _inline_formula(state: "StateInline", silent: bool) -> bool:
    source, start = state.src, state.pos
    opening = next((opening for opening in _FORMULAS if source.startswith(opening, start)), "")
    content = start + len(opening)
    end = source.find(_FORMULAS[opening], content, content + _LONGEST_FORMULA) if opening else -1
    if end <= content:
        return False
    after = end + len(opening)
    if opening == "$":
        # "costs $5 and $6": a formula hugs its dollars, and no digit follows it.
        hugged = not source[content].isspace() and not source[end - 1].isspace() and source[end - 1] != "\\"
        if not hugged or source[after : after + 1].isdigit():
            return False
    if not silent:
        state.push("math", "", 0).content = source[start:after]
    state.pos = after
    return True


def _block_formula(state: "StateBlock", start_line: int, end_line: int, silent: bool) -> bool:
    if state.is_code_block(start_line):
        return False

    def line(index: int) -> str:
        return state.src[state.bMarks[index] + state.tShift[index] : state.eMarks[index]].strip()

    # Only a "$$" that opens its line and is not closed on it; what fits on one line is inline.
    if not line(start_line).startswith("$$") or line(start_line).count("$$") != 1:
        return False
    for index in range(start_line + 1, min(end_line, start_line + 100)):
        if not line(index) or state.sCount[index] < state.blkIndent:
            return False  # a blank line ends a formula in TeX as well; a line further out belongs to something else
        if line(index).endswith("$$"):
            if not silent:
                state.push("math", "", 0).content = " ".join(map(line, range(start_line, index + 1)))
            state.line = index + 1
            return True
    return False


def _add_markdown(page: PageText, tokens: Sequence["Token"]) -> None:
    level = 0  # of the heading that is open
    number = ""  # of the list item that begins
    row: list[str] | None = None  # the cells of the open row
    for token in tokens:
        match token.type:
            case "heading_open":
                level = int(token.tag[1:])
            case "list_item_open":
                number = f"{token.info}{token.markup} " if token.info else ""
            case "tr_open":
                row = []
            case "tr_close" if row is not None:
                page.add(" | ".join(row) if any(row) else "")
                row = None
            case "inline" if row is not None:
                row.append(_one_line(_inline_text(token.children or [])))
            case "inline" if level:
                title = _HEADING_ATTRIBUTES.sub("", _inline_text(token.children or []))
                page.add_heading(level, number + title if title else "")
                level, number = 0, ""
            case "inline" | "math":
                content = _inline_text(token.children or []) if token.type == "inline" else token.content
                page.add(number + content if content.strip() else "")
                number = ""
            case "list_item_close":
                number = ""
            case "fence" | "code_block":
                page.add_code(token.content)
            case "html_block":
                _add_html(page, token.content)


def _inline_text(tokens: Sequence["Token"]) -> str:
    """Return the text of inline tokens as a reader sees it; a newline in it is a line break the author set."""
    text = ""
    hidden = ""  # the script or style element that is open
    for token in tokens:
        if token.type == "html_inline":
            tag = re.match(r"<(/?)([a-zA-Z][\w-]*)", token.content)
            name = tag[2].lower() if tag else ""
            if name in ("script", "style", "template") and not (hidden and hidden != name):
                hidden = "" if tag and tag[1] else name
            elif name == "br":
                text += "\n"
            elif name == "img":
                image = PageText()
                _add_html(image, token.content)
                text += image.page(1, "html").text
        elif hidden:
            continue
        elif token.type == "softbreak":
            text += "\r"  # see below
        elif token.type == "hardbreak":
            text += "\n"
        elif token.type == "image":
            text += _inline_text(token.children or [])
        else:
            text += token.content.replace("\n", " ")
    # The source's own line ends are all "\n", so that "\r" stands for one that only wraps. Chinese wraps without a space.
    return re.sub(
        r"(.?)[ \t]*\r[ \t]*(?=(.?))",
        lambda m: m[1] + ("" if m[1] and m[2] and is_unspaced(m[1]) and is_unspaced(m[2]) else " "),
        text,
    )


def _add_html(page: PageText, source: str) -> None:
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beautifulsoup4 remarks on sources that look like XML, or like a file's name
        soup = BeautifulSoup(source, "html.parser")
    _HtmlWalk(page).walk(soup)


class _HtmlWalk:
    """Goes through an HTML tree from its first element to its last, without recursion: pages may nest thousands deep."""

    def __init__(self, page: PageText) -> None:
        self._page = page
        self._parts: list[str] = []  # of the line, or the lines, not yet added
        self._level = 0  # of the open heading
        self._pre = 0  # how many <pre> are open
        self._tables: list[bool] = []  # for each open table, whether it holds data; others only place things on the page
        self._lists: list[int | None] = []  # for each open list, the number of its next item; None in one without numbers
        self._number = ""  # of an item none of whose text was added yet
        self._cells = -1  # how many cells the open row has so far; -1 outside of rows

    def walk(self, root: "Tag") -> None:
        from bs4.element import CData, NavigableString, Tag

        stack: list[tuple[PageElement, Callable[[Tag], None] | None]] = [(root, None)]
        while stack:
            node, leave = stack.pop()
            if isinstance(node, Tag):
                if leave:
                    leave(node)
                elif self._enter(node):
                    stack.append((node, self._leave))
                    stack.extend((child, None) for child in reversed(node.contents))
            elif type(node) in (NavigableString, CData):  # their other kinds are comments, declarations, scripts
                text = str(node)
                self._parts.append(text if self._pre else re.sub(r"\s+", " ", text))
        self._end_line()

    def _enter(self, tag: "Tag") -> bool:
        """Take in what stands at the tag's beginning; say whether its content is wanted."""
        name = tag.name
        if name in _BLOCKS:
            self._end_line()
        if name in _SKIPPED or not _SKIPPED_CLASSES.isdisjoint(tag.get_attribute_list("class")):
            return False
        if name == "br":
            self._parts.append(" " if self._in_line() else "\n")
        elif name == "img":
            self._parts.append(re.sub(r"\s+", " ", str(tag.get("alt") or "")))
        elif name == "math":
            return self._formula(tag)
        elif name in _HEADINGS and not self._in_line():
            # A heading that was never closed holds all that follows.
            if tag.find([*_HEADINGS, "p", "ul", "ol", "table", "pre"]) is None:
                self._level = int(name[1])
        elif name == "pre":
            self._pre += 1
        elif name == "table":
            self._tables.append(_holds_data(tag))
        elif name == "tr" and self._tables and self._tables[-1]:
            self._end_row()
            self._cells = 0
        elif name in ("td", "th") and self._cells >= 0:
            self._parts.append(" | " if self._cells else "")
            self._cells += 1
        elif name in ("ol", "ul"):
            start = str(tag.get("start") or "1")
            self._lists.append((int(start) if re.fullmatch(r"[0-9]{1,6}", start) else 1) if name == "ol" else None)
        elif name == "li" and self._lists and self._lists[-1] is not None:
            self._number = f"{self._lists[-1]}. "
            self._lists[-1] += 1
        return True

    def _leave(self, tag: "Tag") -> None:
        name = tag.name
        if name == "tr":
            self._end_row()
        elif name == "table":
            self._end_row()
            self._tables.pop()
        elif name in _HEADINGS and self._level and self._cells < 0:
            self._page.add_heading(self._level, "".join(self._parts))
            self._parts.clear()
            self._level = 0
        elif name in _BLOCKS:
            self._end_line()
        if name == "pre":
            self._pre -= 1
        elif name in ("ol", "ul"):
            self._lists.pop()
        elif name == "li":
            self._number = ""

    def _in_line(self) -> bool:
        """Say whether all text goes into one line: that of a heading, or of a table's row."""
        return self._level > 0 or self._cells >= 0

    def _end_line(self) -> None:
        if self._in_line():
            self._parts.append(" ")
            return
        text = "".join(self._parts)
        self._parts.clear()
        if self._pre:
            self._page.add_code(text)
        elif text.strip():
            self._page.add(self._number + text)
            self._number = ""

    def _end_row(self) -> None:
        if self._cells >= 0:
            row = "".join(self._parts).replace("\n", " ")
            self._parts.clear()
            self._cells = -1
            self._page.add(row if row.strip(" |") else "")

    def _formula(self, math: "Tag") -> bool:
        """Take MathML's TeX source where it has one; its bare letters lose what is above and below."""
        source = math.find("annotation", attrs={"encoding": "application/x-tex"})
        if source is not None:
            self._parts.append(f"${' '.join(source.get_text().split())}$")
        return source is None


def _holds_data(table: "Tag") -> bool:
    if table.find([*_HEADINGS, "table", "pre"]) is not None:
        return False
    return any(len(row.find_all(["td", "th"])) > 1 for row in table.find_all("tr"))
