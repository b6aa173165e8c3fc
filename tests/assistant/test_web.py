"""What the page's callbacks do, without a browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.answer import Assistant
from assistant.mcq import MCQ, QuestionError
from assistant.model import LanguageModel
from assistant.web import _from_fields, answer_html, create_app, index_uploads, to_fields
from ingest.course import Course, course_names
from ingest.errors import CourseError, UserError

MakePdf = Callable[[Path, str], Path]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3))"


def ignore(_: object) -> None:
    pass


def test_texts_from_files_and_users_are_shown_as_text(lm: LanguageModel, home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    make_pdf(tmp_path / "c" / "a<b>.pdf", f"#raw({HOSTILE!r}) Herons wait in shallow water.".replace("'", '"'))
    Course("birds").sync(tmp_path / "c")
    answer = Assistant(lm, Course.open("birds")).answer(MCQ(f"What waits? {HOSTILE}", (HOSTILE, "a heron")))
    shown = answer_html(answer)
    assert "<script" not in shown
    assert "<img" not in shown
    assert "a&lt;b&gt;.pdf, p. 1" in shown
    assert "<script>" in answer.sources[0].passage.text
    assert shown.count("&lt;script&gt;") == 2  # the option and the passage


def test_uploads_make_a_course_and_grow_it(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    first, second = make_pdf(tmp_path / "a.pdf", "Herons wade."), make_pdf(tmp_path / "b.pdf", "Swifts sleep in flight.")
    assert index_uploads(" birds ", [str(first)], ignore).added == ["a.pdf"]
    report = index_uploads("birds", [str(second)], ignore)
    assert (report.added, report.unchanged) == (["b.pdf"], ["a.pdf"])
    assert index_uploads("birds", [], ignore).unchanged == ["a.pdf", "b.pdf"]


def test_uploads_go_to_the_folder_that_the_course_follows(home: Path, folder: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    Course("os").sync(folder)
    index_uploads("os", [str(make_pdf(tmp_path / "extra.pdf", "An extra page."))], ignore)
    assert (folder / "extra.pdf").is_file()
    before = Course("os").documents()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(CourseError, match="is not there any more"):
        index_uploads("os", [str(tmp_path / "extra.pdf")], ignore)
    assert Course("os").documents() == before


def test_other_course_files_than_pdfs_can_be_uploaded(home: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Birds\n\nHerons wade.", encoding="utf-8")
    assert index_uploads("birds", [str(notes)], ignore).added == ["notes.md"]
    fake = tmp_path / "slides.pptx"
    fake.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"slides\.pptx is not a PPTX; choose PDF, DOCX"):
        index_uploads("birds", [str(fake)], ignore)


def test_removing_a_course_keeps_its_uploads(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    index_uploads("birds", [str(make_pdf(tmp_path / "a.pdf", "Herons wade."))], ignore)
    kept = Course.open("birds").folder / "a.pdf"
    Course.open("birds").remove()
    assert course_names() == []
    assert kept.is_file()


def test_bad_uploads_are_refused_before_anything_is_stored(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    fake = tmp_path / "fake.pdf"
    fake.write_bytes(b"MZ this is a program")
    good = make_pdf(tmp_path / "good.pdf", "Good.")
    with pytest.raises(UserError, match=r"fake\.pdf is not a PDF"):
        index_uploads("x", [str(good), str(fake)], ignore)
    twin = make_pdf(tmp_path / "other" / "good.pdf", "Another.")
    with pytest.raises(UserError, match="same name"):
        index_uploads("x", [str(good), str(twin)], ignore)
    for name, uploads, message in (
        ("", [str(good)], "name the course"),
        ("x", [], "choose files"),
        ("../x", [str(good)], "course name"),
    ):
        with pytest.raises(CourseError, match=message):
            index_uploads(name, uploads, ignore)
    assert course_names() == []
    assert not (home / "courses").exists()


@pytest.mark.parametrize("name", ["..\\..\\evil.pdf", "-rf.pdf", "a;b`c`.pdf", "...pdf", "nach\u202eoben.pdf"])
def test_file_names_cannot_leave_their_folder(home: Path, tmp_path: Path, make_pdf: MakePdf, name: str) -> None:
    upload = make_pdf(tmp_path / "up" / "x.pdf", "A page.")
    shutil.copy(upload, tmp_path / "up" / name)
    index_uploads("safe", [str(tmp_path / "up" / name)], ignore)
    (stored,) = Course.open("safe").folder.iterdir()
    assert stored.suffix == ".pdf"
    assert stored.resolve().parent == (home / "courses" / "safe" / "material").resolve()


def test_fields_and_pasted_text_mean_the_same() -> None:
    assert to_fields("Is it?\nA. yes\nB. no") == ("Is it?", "yes\nno")
    for options in ("yes\nno", "A. yes\nB. no", "(a) yes\n\n(b) no", "1) yes\n2) no"):
        assert _from_fields("Is it?", options) == MCQ("Is it?", ("yes", "no"))
    with pytest.raises(QuestionError, match="only one option"):
        _from_fields("Is it?", "yes")


def test_the_page_loads_no_model_until_it_is_asked() -> None:
    def load() -> LanguageModel:
        raise AssertionError("loaded too early")

    assert create_app(load).title == "mcqa"
