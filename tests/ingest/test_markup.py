import codecs
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.document import DocumentText, Page
from ingest.errors import UnreadableDocumentError
from ingest.markup import read_html, read_markdown, read_text

Read = Callable[[Path], DocumentText]


def page_of(read: Read, path: Path, source: str | bytes) -> Page:
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    document = read(path)
    assert document.unit == ""
    assert [page.number for page in document.pages] == [1]
    page = document.pages[0]
    for heading in page.headings:
        assert page.text[heading.start : heading.start + len(heading.title)] == heading.title
        assert heading.start == 0 or page.text[heading.start - 1] == "\n"
    return page


def headings(page: Page) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in page.headings]


def lines(page: Page) -> list[str]:
    return page.text.split("\n")


def status_of(read: Read, path: Path) -> str:
    with pytest.raises(UnreadableDocumentError) as caught:
        read(path)
    return caught.value.status


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("read", [read_text, read_markdown, read_html])
def test_what_is_no_text_says_why(read: Read, file: Path) -> None:
    with pytest.raises(UnreadableDocumentError, match="cannot be opened"):
        read(file)
    assert status_of(read, file) == "damaged"
    for data, status in {
        b"": "no text",
        b" \n\t\n": "no text",
        b"\x89PNG\r\n\x00\x01": "damaged",
        b"\xff\xfe\0\0": "damaged",
    }.items():
        file.write_bytes(data)
        assert status_of(read, file) == status, data


@pytest.mark.parametrize("read", [read_text, read_markdown, read_html])
@pytest.mark.parametrize(
    "data",
    [
        "Café “naïve”".encode(),
        codecs.BOM_UTF8 + "Café “naïve”".encode(),
        "Café “naïve”".encode("utf-16"),
        codecs.BOM_UTF16_BE + "Café “naïve”".encode("utf-16-be"),
        "Café “naïve”".encode("cp1252"),
        "Cafe\u0301\u00a0“na\u00adïve\u200b”\x07".encode(),
    ],
)
def test_encodings_and_characters(read: Read, file: Path, data: bytes) -> None:
    assert page_of(read, file, data).text == "Café “naïve”"


def test_bytes_that_windows_does_not_know_are_still_text(file: Path) -> None:
    assert page_of(read_text, file, b"caf\xe9 \x81").text == "café"


def test_wrapped_text_is_joined_and_other_lines_stay(file: Path) -> None:
    text = """\
Virtual memory gives every process the illusion of an address space
of its own. Pages are mapped on demand, and the hardware translates
addresses with the help of a well-
known table.
Short line.

- an item of a list which is so long that it has to be wrapped over two
  lines
- another item
A) an option
B) an option

    for page in table:
        print(page)
"""
    page = page_of(read_text, file, text.replace("\n", "\r\n"))
    assert lines(page) == [
        (
            "Virtual memory gives every process the illusion of an address space of its own. "
            "Pages are mapped on demand, and the hardware translates addresses with the help of a well-known table."
        ),
        "Short line.",
        "- an item of a list which is so long that it has to be wrapped over two lines",
        "- another item",
        "A) an option",
        "B) an option",
        "    for page in table:",
        "        print(page)",
    ]
    assert page.headings == ()


def test_lines_that_are_whole_paragraphs_are_not_joined(file: Path) -> None:
    paragraphs = ["A long paragraph on one line. " * 10 + "End", "Another one " * 20 + "end"]
    assert lines(page_of(read_text, file, "\n".join(paragraphs))) == paragraphs


def test_form_feeds_part_pages(file: Path) -> None:
    file.write_text("One.\f\fThree.\f")
    document = read_text(file)
    assert document.unit == "page"
    assert [(page.number, page.text) for page in document.pages] == [(1, "One."), (2, ""), (3, "Three.")]


MARKDOWN = r"""---
title: Dropped
---
# *Paging* in `Linux` {#sec-paging}

A hard
wrapped [link](https://example.org/x) and ![a *table*](t.png), <https://example.org>.\
Next line.

Setext
------

3. three
   more

   second paragraph
4. four
   - below

```python
def f():

    return 1
```

| a | b |
|---|---|
| 1 | **2** |

中文
中文

#

> ### Quoted
> text
"""


def test_markdown_blocks_in_order(file: Path) -> None:
    page = page_of(read_markdown, file, MARKDOWN)
    assert lines(page) == [
        "Paging in Linux",
        "A hard wrapped link and a table, https://example.org.",
        "Next line.",
        "Setext",
        "3. three more",
        "second paragraph",
        "4. four",
        "below",
        "def f():",
        "    return 1",
        "a | b",
        "1 | 2",
        "中文中文",
        "Quoted",
        "text",
    ]
    assert headings(page) == [(1, "Paging in Linux"), (2, "Setext"), (3, "Quoted")]
    assert page.reader == "markdown"


def test_a_rule_at_the_beginning_is_not_front_matter(file: Path) -> None:
    assert lines(page_of(read_markdown, file, "---\n# One\n\ntext\n\n---\n\nmore")) == ["One", "text", "more"]


def test_formulas_stay_as_they_are(file: Path) -> None:
    source = r"It is $a*b*c_1$ and $\{x\}$, \(y_1 * y_2\), not $5 or $6. \$1" + "\n\n$$\na\n=\n- b\n$$\n\nEnd $$x$$ *of* it."
    assert lines(page_of(read_markdown, file, source)) == [
        r"It is $a*b*c_1$ and $\{x\}$, \(y_1 * y_2\), not $5 or $6. $1",
        "$$ a = - b $$",
        "End $$x$$ of it.",
    ]


def test_an_open_formula_does_not_swallow_the_document(file: Path) -> None:
    assert lines(page_of(read_markdown, file, "$$\nopen\n\n# Next\n")) == ["$$ open", "Next"]


def test_html_in_markdown_gives_its_text_only(file: Path) -> None:
    source = """<div><p>raw</p><script>evil()</script></div>

in <b>bold</b> <script>evil()</script>x<br>y <img src=a alt="pic"> <!-- evil() -->

<style>
evil {}
</style>
"""
    assert lines(page_of(read_markdown, file, source)) == ["raw", "in bold x", "y pic"]


HTML = """<!doctype html><html><head><title>Not this</title><style>evil{}</style><script>evil()</script>
<body onload="evil()"><nav>evil</nav><header><h1>The <em>first</em><a class="headerlink">¶</a></h1></header>
<p>one
two<p>three &nbsp;four<br>five <!-- evil -->
<ol start=3><li><p>x</p><li>y<ul><li>z</ul></ol><ul><li>u</ul>
<table><caption>Caption</caption><tr><th>a<th>b<tr><td>1<br>2<td><p>3</p></table>
<table><tr><td>left<td><h2>Laid out</h2><p>right</p></table>
<pre>
def f():
    x <b>=</b> 1
</pre>
<img alt="picture"> <math><semantics><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></semantics></math>
<h3></h3><noscript>evil</noscript><template><p>evil</p></template><aside>evil</aside><footer>evil</footer></html>"""


def test_html_blocks_in_order_and_nothing_hidden(file: Path) -> None:
    page = page_of(read_html, file, HTML)
    assert lines(page) == [
        "The first", "one two", "three four", "five", "3. x", "4. y", "z", "u", "Caption", "a | b", "1 2 | 3",
        "left", "Laid out", "right", "def f():", "    x = 1", "picture $x^2$",
    ]  # fmt: skip
    assert headings(page) == [(1, "The first"), (2, "Laid out")]
    assert page.reader == "html"


@pytest.mark.parametrize(
    ("charset", "encoding"), [("iso-8859-15", "iso-8859-15"), ("Shift_JIS", "shift_jis"), ("unicode_escape", "utf-8")]
)
def test_the_declared_charset_is_used_where_it_is_one(file: Path, charset: str, encoding: str) -> None:
    word = "日本" if encoding == "shift_jis" else "10 €"
    page = page_of(read_html, file, f'<meta http-equiv=x content="text/html; charset={charset}"><p>{word}'.encode(encoding))
    assert page.text == word


def test_a_heading_that_is_never_closed_is_not_the_whole_page(file: Path) -> None:
    page = page_of(read_html, file, "<h1>Open<p>text<h2>Closed</h2><p>more")
    assert lines(page) == ["Open", "text", "Closed", "more"]
    assert headings(page) == [(2, "Closed")]


@pytest.mark.parametrize("opening", ["<div>", "<ol><li>", "<table><tr><td>", "<b>"])
def test_deep_nesting_is_no_trouble(file: Path, opening: str) -> None:
    assert page_of(read_html, file, opening * 2000 + "deep").text.endswith("deep")


@pytest.mark.parametrize("source", [">" * 3000 + " x", "[" * 3000 + "x", "*a " * 3000, "$" * 3000 + "x", "\\(" * 3000])
def test_hostile_markdown_ends(file: Path, source: str) -> None:
    file.write_text(source)
    with contextlib.suppress(UnreadableDocumentError):
        assert read_markdown(file).pages


def test_html_that_is_xml_or_broken(file: Path) -> None:
    assert page_of(read_html, file, "<?xml version='1.0'?><html><body><p>text</p></body></html>").text == "text"
    assert page_of(read_html, file, "index.html").text == "index.html"
    file.write_text("<![foo <p>x")
    assert status_of(read_html, file) == "damaged"
