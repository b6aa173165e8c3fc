from collections.abc import Callable
from pathlib import Path

import pypdf
import pytest

from ingest.errors import UnreadableDocumentError
from ingest.pdf import read_pdf

MakePdf = Callable[[Path, str], Path]


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
    with pytest.raises(UnreadableDocumentError, match="password") as caught:
        read_pdf(tmp_path / "locked-hunter2.pdf")
    assert caught.value.status == "encrypted"


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


def test_every_damaged_file_ends_in_pages_or_a_named_reason(data: Path) -> None:
    outcomes = {}
    for path in sorted((data / "pdf" / "damaged").glob("*.pdf")):
        try:
            outcomes[path.name] = "read" if read_pdf(path).pages else "?"
        except UnreadableDocumentError as error:
            outcomes[path.name] = error.status
    assert set(outcomes.values()) <= {"read", "damaged", "encrypted", "no text"}
    assert sum(outcome == "read" for outcome in outcomes.values()) > len(outcomes) / 2
