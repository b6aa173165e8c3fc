import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import pptx
import pytest
from docx.enum.section import WD_SECTION
from docx.enum.text import WD_BREAK
from docx.oxml import parse_xml
from pptx.util import Inches

import ingest.office
from ingest.document import DocumentText, Page
from ingest.errors import UnreadableDocumentError
from ingest.office import read_docx, read_pptx

NAMESPACES = " ".join(
    f'xmlns:{prefix}="http://schemas.openxmlformats.org/{path}"'
    for prefix, path in {
        "w": "wordprocessingml/2006/main",
        "m": "officeDocument/2006/math",
        "mc": "markup-compatibility/2006",
        "a": "drawingml/2006/main",
        "p": "presentationml/2006/main",
    }.items()
)
Read = Callable[[Path], DocumentText]


def xml(source: str) -> Any:
    name, rest = source.lstrip("<").split(">", 1)
    return parse_xml(f"<{name} {NAMESPACES}>{rest}")


def word(tmp_path: Path, *blocks: str) -> DocumentText:
    """The document with these blocks, each WordprocessingML."""
    document = docx.Document()
    for block in blocks:
        document.element.body.insert_element_before(xml(block), "w:sectPr")
    document.save(tmp_path / "a.docx")
    return read_docx(tmp_path / "a.docx")


def texts(document: DocumentText) -> list[str]:
    assert [page.number for page in document.pages] == list(range(1, len(document.pages) + 1))
    for page in document.pages:
        for heading in page.headings:
            assert page.text[heading.start : heading.start + len(heading.title)] == heading.title
    return [page.text for page in document.pages]


def headings(page: Page) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in page.headings]


def rewritten(path: Path, member: str, change: Callable[[bytes], bytes]) -> None:
    """Change one member of the zip file at `path`."""
    old = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, change(source.read(name)) if name == member else source.read(name))


def refused(read: Read, path: Path) -> UnreadableDocumentError:
    with pytest.raises(UnreadableDocumentError) as caught:
        read(path)
    return caught.value


def some_docx(path: Path) -> Path:
    document = docx.Document()
    document.add_paragraph("Some text.")
    document.save(str(path))
    return path


def some_pptx(path: Path) -> Path:
    presentation = pptx.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = "Some title"
    presentation.save(str(path))
    return path


def test_paragraphs_tables_and_headings_in_order(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("The title", 0)
    document.add_paragraph("Cafe\u0301\u00a0one.\ttwo\nthree")
    document.add_heading("Part", 2)
    table = document.add_table(2, 3)
    for index, cell in enumerate(table.rows[0].cells):
        cell.text = f"cell {index}"
    table.cell(1, 0).merge(table.cell(1, 1)).text = "wide"
    document.add_paragraph("item", style="List Bullet")
    custom = document.styles.add_style("Own", 1)
    custom.base_style = document.styles["Heading 3"]
    document.add_paragraph("Inherited", style="Own")
    document.add_table(1, 1).cell(0, 0).text = "framed\nlines"
    document.save(str(tmp_path / "a.docx"))
    read = read_docx(tmp_path / "a.docx")
    assert read.unit == ""
    assert texts(read) == [
        "The title\nCafé one. two\nthree\nPart\ncell 0 | cell 1 | cell 2\nwide |\nitem\nInherited\nframed\nlines"
    ]
    assert headings(read.pages[0]) == [(1, "The title"), (2, "Part"), (3, "Inherited")]
    assert read.pages[0].reader == "docx"


def test_an_outline_level_makes_a_heading_and_unmakes_one(tmp_path: Path) -> None:
    read = word(
        tmp_path,
        '<w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Level two</w:t></w:r></w:p>',
        '<w:p><w:pPr><w:pStyle w:val="Heading1"/><w:outlineLvl w:val="9"/></w:pPr><w:r><w:t>Body</w:t></w:r></w:p>',
        '<w:p><w:pPr><w:outlineLvl w:val="8"/></w:pPr><w:r><w:t>Deep</w:t></w:r></w:p>',
    )
    assert texts(read) == ["Level two\nBody\nDeep"]
    assert headings(read.pages[0]) == [(2, "Level two"), (6, "Deep")]


def test_page_breaks_make_pages(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("One").add_run().add_break(WD_BREAK.PAGE)
    document.add_paragraph("Two")
    document.add_paragraph("Three").paragraph_format.page_break_before = True
    document.add_section(WD_SECTION.NEW_PAGE)
    document.add_heading("Four", 1)
    document.add_section(WD_SECTION.CONTINUOUS)
    document.add_paragraph("Still four")
    document.add_page_break()
    document.add_page_break()
    document.add_paragraph("Six")
    document.save(str(tmp_path / "a.docx"))
    read = read_docx(tmp_path / "a.docx")
    assert read.unit == "page"
    assert texts(read) == ["One", "Two", "Three", "Four\nStill four", "", "Six"]
    assert headings(read.pages[3]) == [(1, "Four")]


def test_the_pages_of_words_last_layout(tmp_path: Path) -> None:
    rendered = "<w:lastRenderedPageBreak/>"
    cell = f"<w:tc><w:p><w:r>{rendered}<w:t>x</w:t></w:r></w:p></w:tc>"
    parted = f"<w:tc><w:p><w:r><w:t>y</w:t>{rendered}<w:t>z</w:t></w:r></w:p></w:tc>"
    read = word(
        tmp_path,
        f"<w:p><w:r><w:t>One</w:t>{rendered}<w:t>two</w:t></w:r></w:p>",
        # Word marks the page's end once more where the author broke the page.
        '<w:p><w:r><w:br w:type="page"/></w:r></w:p>',
        f"<w:p><w:r>{rendered}<w:t>Three</w:t></w:r></w:p>",
        f'<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r>{rendered}<w:t>Four</w:t></w:r></w:p>',
        f"<w:tbl><w:tr>{cell}{cell}</w:tr><w:tr>{parted}{parted}</w:tr></w:tbl>",
        "<w:p><w:r><w:t>Six</w:t></w:r></w:p>",
    )
    assert texts(read) == ["One", "two", "Three", "Four", "x | x\ny z | y z", "Six"]
    assert headings(read.pages[3]) == [(1, "Four")]


def test_formulas_insertions_boxes_and_what_was_deleted(tmp_path: Path) -> None:
    def r(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    read = word(
        tmp_path,
        f"<w:p><w:r><w:t>It is </w:t></w:r><m:oMath><m:f><m:num>{r('a')}</m:num><m:den>{r('b+c')}</m:den></m:f>"
        f"<m:sSup><m:e>{r('x')}</m:e><m:sup>{r('2')}</m:sup></m:sSup></m:oMath><w:r><w:t>.</w:t></w:r></w:p>",
        "<w:p><w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
        "<w:hyperlink><w:r><w:t> link</w:t></w:r></w:hyperlink><w:r><w:instrText>PAGEREF x</w:instrText></w:r></w:p>",
        f"<w:p><w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
        "</mc:AlternateContent></w:r><w:r><w:t>around</w:t></w:r></w:p>",
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>",
    )
    assert texts(read) == ["It is a/(b+c)x^2.\nnew link\naround\nboxed\ncontrolled"]


def test_slides_in_reading_order(tmp_path: Path) -> None:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])

    def box(shapes: Any, left: float, top: float, text: str) -> None:
        shapes.add_textbox(Inches(left), Inches(top), Inches(1), Inches(1)).text_frame.text = text

    box(slide.shapes, 5, 3.1, "right")
    box(slide.shapes, 1, 3.2, "left\vbroken\nnext")
    group = slide.shapes.add_group_shape()
    box(group.shapes, 1, 6, "group below")
    box(group.shapes, 1, 5, "group above")
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(7), Inches(4), Inches(1)).table
    for index, cell in enumerate(table.iter_cells()):
        cell.text = str(index)
    slide.shapes.title.text = "The\vtitle"
    slide.notes_slide.notes_text_frame.text = "Said\u00a0aloud"
    hidden = presentation.slides.add_slide(presentation.slide_layouts[1])
    hidden.element.set("show", "0")
    hidden.placeholders[1].text = "no title, hidden"
    presentation.slides.add_slide(presentation.slide_layouts[6])
    presentation.save(str(tmp_path / "a.pptx"))
    read = read_pptx(tmp_path / "a.pptx")
    assert read.unit == "slide"
    assert texts(read) == [
        "The title\nleft\nbroken\nnext\nright\ngroup above\ngroup below\n0 | 1\n2 | 3\nSaid aloud",
        "no title, hidden",
        "",
    ]
    assert headings(read.pages[0]) == [(1, "The title")]
    assert read.pages[1].headings == ()


def test_shapes_that_only_newer_programs_show(tmp_path: Path) -> None:
    path = some_pptx(tmp_path / "a.pptx")
    shape = (
        "<p:sp><p:nvSpPr><p:cNvPr id='9' name='x'/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/>"
        "<a:p><a:r><a:t>%s </a:t></a:r><m:oMath><m:sSub><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sub><m:r><m:t>ij</m:t></m:r>"
        "</m:sub></m:sSub></m:oMath></a:p></p:txBody></p:sp>"
    )
    both = f"<mc:AlternateContent {NAMESPACES}><mc:Choice Requires='a14'>{shape % 'new'}</mc:Choice>"
    both += f"<mc:Fallback>{shape % 'old'}</mc:Fallback></mc:AlternateContent></p:spTree>"
    rewritten(path, "ppt/slides/slide1.xml", lambda data: data.replace(b"</p:spTree>", both.encode()))
    assert texts(read_pptx(path)) == ["Some title\nnew x_(ij)"]


@pytest.mark.parametrize(("read", "make"), [(read_docx, some_docx), (read_pptx, some_pptx)])
def test_damaged_files_say_what_is_wrong(tmp_path: Path, read: Read, make: Callable[[Path], Path]) -> None:
    assert "cannot be opened" in refused(read, tmp_path / "missing").reason
    path = make(tmp_path / "a")
    whole = path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("a.txt", "text")
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)
    other = (some_pptx if make is some_docx else some_docx)(tmp_path / "other").read_bytes()
    for data in (b"", b"plain text", whole[: len(whole) // 2], archive.getvalue(), ole, other):
        path.write_bytes(data)
        error = refused(read, path)
        assert error.status == "damaged"
        assert "it is not a" in error.reason
    path.write_bytes(ole + "EncryptedPackage".encode("utf-16-le") + bytes(100))
    error = refused(read, path)
    assert (error.status, error.reason) == ("encrypted", "it is encrypted and needs a password")


def test_each_cut_or_garbled_member_ends_in_pages_or_a_reason(tmp_path: Path) -> None:
    for read, path in ((read_docx, some_docx(tmp_path / "a.docx")), (read_pptx, some_pptx(tmp_path / "a.pptx"))):
        whole = path.read_bytes()
        for name in ("[Content_Types].xml", "_rels/.rels", "word/document.xml", "word/styles.xml", "ppt/slides/slide1.xml"):
            for change in (lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"<x/>"):
                path.write_bytes(whole)
                rewritten(path, name, change)
                with contextlib.suppress(UnreadableDocumentError):
                    assert read(path).pages


def test_files_without_text_say_so(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "a.docx"))
    pptx.Presentation().save(str(tmp_path / "a.pptx"))
    for error in (refused(read_docx, tmp_path / "a.docx"), refused(read_pptx, tmp_path / "a.pptx")):
        assert (error.status, error.reason) == ("no text", "it holds no text")


@pytest.mark.parametrize("name", ["word/styles.xml", "word/media/image.png"])
def test_a_bomb_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = some_docx(tmp_path / "a.docx")
    monkeypatch.setattr(ingest.office, "_MOST_XML", 2_000_000)
    assert read_docx(path).pages
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big/" + name, b" " * 2_000_001)
    error = refused(read_docx, path)
    assert (error.status, error.reason) == ("damaged", "its contents unpack to more than 2 MB")


def test_entities_are_not_resolved(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    path = some_docx(tmp_path / "a.docx")
    slides = some_pptx(tmp_path / "a.pptx")
    declaration = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}"><!ENTITY i "INTERNAL">]>'.encode()

    def attack(data: bytes) -> bytes:
        start = data.index(b"?>") + 2
        return data[:start] + declaration + data[start:].replace(b"Some ", b"Some &e;&i; ")

    rewritten(path, "word/document.xml", attack)
    rewritten(slides, "ppt/slides/slide1.xml", attack)
    for text in (*texts(read_docx(path)), *texts(read_pptx(slides))):
        assert text.startswith("Some")
        assert "SECRET" not in text


def test_entities_that_grow_are_refused(tmp_path: Path) -> None:
    path = some_docx(tmp_path / "a.docx")
    entities = '<!ENTITY a0 "aaaaaaaaaa">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))

    def attack(data: bytes) -> bytes:
        start = data.index(b"?>") + 2
        grown = data[start:].replace(b"<w:p>", b'<w:p w:rsidR="&a11;">', 1)
        return data[:start] + f"<!DOCTYPE x [{entities}]>".encode() + grown

    rewritten(path, "word/document.xml", attack)
    assert refused(read_docx, path).status == "damaged"
