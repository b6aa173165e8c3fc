import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pypdf
import pytest

from ingest import ocr
from ingest.errors import UnreadableDocumentError, UserError
from ingest.pdf import read_pdf

MakePdf = Callable[[Path, str], Path]
FILLER = "This is a paragraph of running text, long enough to show which size of letters the page is set in. " * 4


def without_outline(path: Path) -> Path:
    writer = pypdf.PdfWriter()
    writer.append(path, import_outline=False)
    bare = path.with_stem(path.stem + "-bare")
    writer.write(bare)
    return bare


def headings(path: Path) -> list[tuple[int, int, str]]:
    """Return page, level and title of a document's headings; each must begin where it says it does."""
    pages = read_pdf(path).pages
    for page in pages:
        assert all(page.text[heading.start :].startswith(heading.title) for heading in page.headings)
        assert [heading.start for heading in page.headings] == sorted(heading.start for heading in page.headings)
    return [(page.number, heading.level, heading.title) for page in pages for heading in page.headings]


def fail(*_: object, **__: object) -> str:
    raise ValueError("broken")


def test_pages_come_in_order_with_their_numbers(tmp_path: Path, make_pdf: MakePdf) -> None:
    path = make_pdf(tmp_path / "a.pdf", "The first page.\n#pagebreak()\nThe second page.\n#pagebreak()\n#pagebreak()\nFourth.")
    document = read_pdf(path)
    assert [(page.number, page.text) for page in document.pages] == [
        (1, "The first page."), (2, "The second page."), (3, ""), (4, "Fourth."),
    ]  # fmt: skip


def test_an_encrypted_file_says_so_and_an_empty_password_opens_it(tmp_path: Path, make_pdf: MakePdf) -> None:
    plain = make_pdf(tmp_path / "a.pdf", "Secret knowledge.")
    for password in ("", "hunter2"):
        writer = pypdf.PdfWriter(clone_from=plain)
        writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
        writer.write(tmp_path / f"locked-{password}.pdf")
    assert read_pdf(tmp_path / "locked-.pdf").pages[0].text == "Secret knowledge."
    locked = tmp_path / "locked-hunter2.pdf"
    assert read_pdf(locked, password="hunter2").pages[0].text == "Secret knowledge."
    assert read_pdf(plain, password="hunter2").pages[0].text == "Secret knowledge."
    for password, advice in {"": "--password", "hunter3": "does not open it"}.items():
        with pytest.raises(UnreadableDocumentError, match=advice) as caught:
            read_pdf(locked, password=password)
        assert caught.value.status == "encrypted"


def test_progress_is_told_page_by_page(tmp_path: Path, make_pdf: MakePdf) -> None:
    told = []
    read_pdf(make_pdf(tmp_path / "a.pdf", "One.\n#pagebreak()\nTwo."), on_page=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_page_that_pypdf_fails_on_is_read_by_pdfium(
    tmp_path: Path, make_pdf: MakePdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    markup = '#set page(width: 5cm)\n#set text(hyphenate: true, lang: "en")\n#set par(justify: true)\n'
    path = make_pdf(tmp_path / "a.pdf", markup + "The internationalization of incomprehensible characteristics. " * 3)
    by_pypdf = read_pdf(path)
    monkeypatch.setattr(pypdf.PageObject, "extract_text", fail)
    by_pdfium = read_pdf(path)
    assert (by_pypdf.pages[0].reader, by_pdfium.pages[0].reader) == ("pypdf", "pdfium")
    assert by_pypdf.pages[0].text == by_pdfium.pages[0].text
    assert by_pdfium.pages[0].text.count("internationalization") == 3  # its hyphens at line ends are undone
    assert by_pdfium.unreadable_pages == ()


def test_broken_text_is_read_again_and_clean_text_is_not(
    tmp_path: Path, make_pdf: MakePdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_pdf(tmp_path / "a.pdf", "The surface reflects the light, and the first of them finds it.")
    assert read_pdf(path).pages[0].reader == "pypdf"
    broken = "The surface re\u00dfects the light, and the \u00derst of them \u00dends it."
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda *_: broken)
    page = read_pdf(path).pages[0]
    assert (page.reader, page.text) == ("pdfium", "The surface reflects the light, and the first of them finds it.")


def test_a_file_without_its_table_of_objects_is_read_by_pdfium(tmp_path: Path) -> None:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R /Resources 5 0 R >>",
        b"<< /Length 43 >>\nstream\nBT /F1 12 Tf 20 100 Td (Still readable) Tj ET\nendstream",
        b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>",
    ]
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, text) for number, text in enumerate(objects, start=1))
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4\n" + body + b"trailer << /Root 1 0 R >>\n")
    page = read_pdf(path).pages[0]
    assert (page.text, page.reader) == ("Still readable", "pdfium")


def test_headings_come_from_the_outline(tmp_path: Path, make_pdf: MakePdf) -> None:
    markup = f"""#set heading(numbering: "1.1")
= Energy
{FILLER}
== Work and power
{FILLER}
#pagebreak()
{FILLER}
== Heat
{FILLER}"""
    path = make_pdf(tmp_path / "a.pdf", markup)
    assert headings(path) == [(1, 1, "1 Energy"), (1, 2, "1.1 Work and power"), (2, 2, "1.2 Heat")]


def test_an_entry_of_the_outline_that_its_page_does_not_show_stands_at_the_page_s_start(
    tmp_path: Path, make_pdf: MakePdf
) -> None:
    writer = pypdf.PdfWriter(clone_from=make_pdf(tmp_path / "a.pdf", f"{FILLER}\n#pagebreak()\n{FILLER}"))
    for title, page in {"Page 1": 0, "The picture of a chapter": 1, "": 1}.items():
        writer.add_outline_item(title=title, page_number=page)
    writer.add_outline_item(title="Another  chapter .......... 2", page_number=1)
    writer.write(tmp_path / "b.pdf")
    found = read_pdf(tmp_path / "b.pdf").pages
    assert found[0].headings == ()
    assert [(heading.start, heading.title) for heading in found[1].headings] == [
        (0, "The picture of a chapter"), (0, "Another chapter"),
    ]  # fmt: skip


def test_an_outline_that_has_nothing_to_do_with_the_pages_is_not_believed(tmp_path: Path, make_pdf: MakePdf) -> None:
    path = make_pdf(tmp_path / "a.pdf", f"= Energy\n{FILLER}\n#pagebreak()\n= Heat\n{FILLER}")
    writer = pypdf.PdfWriter()
    writer.append(path, import_outline=False)
    for title in ("Bananas", "Oranges", "Plums"):
        for page in (0, 1):
            writer.add_outline_item(title=title, page_number=page)
    writer.write(tmp_path / "b.pdf")
    assert headings(tmp_path / "b.pdf") == [(1, 1, "Energy"), (2, 1, "Heat")]


def test_headings_come_from_the_size_of_letters_where_there_is_no_outline(tmp_path: Path, make_pdf: MakePdf) -> None:
    markup = f"""#outline()
#pagebreak()
= Energy
{FILLER}
== Work and #linebreak() power
{FILLER}
- #text(size: 14pt)[An item in large print]
#figure(rect(), caption: [Figure of energy])
{FILLER}
#pagebreak()
#text(size: 14pt)[A whole sentence in large print is no heading at all.]

{FILLER}
== Heat
{FILLER}"""
    entries = "".join(f"\n== Section {letter} of the book\n{FILLER}" for letter in "ABCDE")
    path = without_outline(make_pdf(tmp_path / "a.pdf", markup + entries))
    found = headings(path)
    sections = [title for _, _, title in found if title.startswith("Section")]
    assert sections == [f"Section {letter} of the book" for letter in "ABCDE"]
    assert [entry for entry in found if entry[2] not in sections] == [
        (2, 1, "Energy"), (2, 2, "Work and power"), (3, 2, "Heat"),
    ]  # fmt: skip


def test_headings_come_from_their_shape_where_all_letters_have_one_size(tmp_path: Path, make_pdf: MakePdf) -> None:
    markup = f"""Chapter 3 Memory

3.1 Address spaces

{FILLER}

Chapter 3 is about a thing that takes 3.5 Seconds.

2.5 seconds later

3.2 Page tables

{FILLER}"""
    path = make_pdf(tmp_path / "a.pdf", markup)
    assert headings(path) == [(1, 1, "Chapter 3 Memory"), (1, 2, "3.1 Address spaces"), (1, 2, "3.2 Page tables")]


def test_running_heads_and_page_numbers_are_neither_text_nor_headings(tmp_path: Path, make_pdf: MakePdf) -> None:
    texts = [f"{word} is what this page tells. {FILLER}That was {word}." for word in ("Force", "Mass", "Work", "Heat")]
    markup = '#set page(numbering: "i", header: text(size: 16pt)[Lectures on Physics])\n'
    first, *others = read_pdf(make_pdf(tmp_path / "a.pdf", markup + "\n#pagebreak()\n".join(texts))).pages
    assert first.text == f"Lectures on Physics\n{texts[0]}"  # the first one may be the title that the others repeat
    assert [(page.text, page.headings) for page in others] == [(text, ()) for text in texts[1:]]


@pytest.fixture
def scan(tmp_path: Path, make_pdf: MakePdf) -> Path:
    """A PDF whose only page is a picture of a text."""
    import pypdfium2

    document = pypdfium2.PdfDocument(make_pdf(tmp_path / "a.pdf", "#set text(size: 20pt)\nA stack grows downwards."))
    page = document[0]
    image = page.render(scale=2).to_pil()
    image.save(tmp_path / "scan.pdf")
    image.close()
    page.close()
    document.close()
    return tmp_path / "scan.pdf"


def test_a_scan_says_that_ocr_would_help(scan: Path) -> None:
    with pytest.raises(UnreadableDocumentError, match="--ocr") as caught:
        read_pdf(scan)
    assert caught.value.status == "no text"


def test_ocr_reads_pages_without_text(scan: Path) -> None:
    if find_spec("pytesseract") is None or shutil.which("tesseract") is None:
        pytest.skip("tesseract is not installed")
    page = read_pdf(scan, ocr=True).pages[0]
    assert (page.text, page.reader) == ("A stack grows downwards.", "ocr")
    text = read_pdf(scan.with_name("a.pdf"), ocr=True).pages[0]
    assert text.reader == "pypdf"  # OCR is slow, and for pages without text only


def test_ocr_that_cannot_run_names_the_remedy_before_work_starts(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="apt-get install tesseract-ocr"):
        read_pdf(scan, ocr=True)
    monkeypatch.setattr(ocr, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install .mcqa-assistant\[ocr\]"):
        ocr.require()


def test_damaged_and_textless_files_say_what_is_wrong(tmp_path: Path, make_pdf: MakePdf) -> None:
    (tmp_path / "junk.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    (tmp_path / "empty.pdf").write_bytes(b"")
    make_pdf(tmp_path / "drawing.pdf", "#rect(width: 3cm, height: 2cm)")
    for name, status in {"junk": "damaged", "empty": "damaged", "drawing": "no text"}.items():
        with pytest.raises(UnreadableDocumentError) as caught:
            read_pdf(tmp_path / f"{name}.pdf")
        assert caught.value.status == status
    with pytest.raises(UnreadableDocumentError, match="cannot be opened"):
        read_pdf(tmp_path / "missing.pdf")


def test_a_real_book_s_lost_ligatures_are_found_again(data: Path) -> None:
    document = read_pdf(data / "pdf" / "erickson_algorithms" / "00-intro.pdf")
    text = " ".join(page.text for page in document.pages)
    assert "significance" in text
    assert "different" in text
    assert [page.reader for page in document.pages].count("pdfium") > 10
    titles = [heading.title for page in document.pages for heading in page.headings]
    assert titles[:3] == ["Introduction", "0.1 What is an algorithm?", "0.2 Multiplication"]


def test_right_to_left_and_east_asian_pages_stay_in_logical_order(data: Path) -> None:
    folder = data / "pdf" / "damaged"
    assert read_pdf(folder / "py-pdf-sample-files_015-arabic_habibi-rotated.pdf").pages[0].text == "حَبيبي habibi حَبيبي"
    assert "مرحبا بالعالم" in read_pdf(folder / "pypdf_multilang.pdf").pages[0].text
    assert read_pdf(folder / "pdfjs_noembed-sjis.pdf").pages[0].text == "あいうえお"


def test_every_damaged_file_ends_in_pages_or_a_named_reason(data: Path) -> None:
    outcomes = {}
    for path in sorted((data / "pdf" / "damaged").glob("*.pdf")):
        try:
            outcomes[path.name] = "read" if read_pdf(path).pages else "?"
        except UnreadableDocumentError as error:
            outcomes[path.name] = error.status
    assert set(outcomes.values()) <= {"read", "damaged", "encrypted", "no text"}
    assert sum(outcome == "read" for outcome in outcomes.values()) > len(outcomes) / 2
