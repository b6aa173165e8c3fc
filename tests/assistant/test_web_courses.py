"""The tab Courses, its callbacks without a browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.web_courses import documents_html, index_uploads, overview_html, remove, rename
from ingest.course import Course, course_names
from ingest.errors import CourseError, UserError

MakePdf = Callable[[Path, str], Path]


def ignore(_: object) -> None:
    pass


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


def test_a_course_shows_what_it_holds_and_what_could_not_be_read(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    assert "No courses yet" in overview_html()
    empty = make_pdf(tmp_path / "<i>.pdf", "#rect()")
    index_uploads("birds", [str(make_pdf(tmp_path / "a.pdf", "Herons wade.")), str(empty)], ignore)
    assert "1 file could not be read" in overview_html()
    shown = documents_html("birds")
    assert "No text in it" in shown
    assert "<i>" not in shown


def test_another_length_of_passages_makes_the_index_anew(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    index_uploads("birds", [str(make_pdf(tmp_path / "a.pdf", "Herons wade in water. " * 40))], ignore)
    before = Course("birds").documents()[0].passages
    index_uploads("birds", [], ignore, passage_tokens=40)
    assert Course("birds").documents()[0].passages > before
    assert Course.open("birds").settings.passage_tokens == 40


def test_a_course_is_renamed_and_removed_with_or_without_its_files(home: Path, tmp_path: Path, make_pdf: MakePdf) -> None:
    for name in ("birds", "bees"):
        index_uploads(name, [str(make_pdf(tmp_path / "a.pdf", "Herons wade."))], ignore)
    assert "now called herons" in rename("birds", " herons ")
    assert course_names() == ["bees", "herons"]
    kept = Course.open("bees").folder
    assert "stay in" in remove("bees", False)
    assert (kept / "a.pdf").is_file()
    assert "its files are removed" in remove("herons", True)
    assert not (home / "courses" / "herons").exists()
    with pytest.raises(CourseError, match="no course"):
        remove("herons", True)


def test_too_many_files_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="too many"):
        index_uploads("birds", [str(tmp_path / "a.md")] * 101, ignore)
