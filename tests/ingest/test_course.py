"""The real chain: PDFs on disk → Chroma and SQLite on disk → passages."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pypdf
import pytest
from filelock import FileLock

from ingest.course import Course, course_names
from ingest.errors import CourseError, IndexMismatchError
from ingest.search import METHODS
from ingest.sync import Progress

MakePdf = Callable[[Path, str], Path]
pytestmark = pytest.mark.usefixtures("home")


def state(course: Course) -> dict[str, tuple[str, int, int]]:
    """Everything searchable, by passage id."""
    store = course._store
    return {p.id: (p.text, p.start, p.page_first) for p in store.passages(store.passage_ids()).values()}


def test_sync_finds_new_changed_and_removed_files(folder: Path, make_pdf: MakePdf) -> None:
    course = Course("os")
    first = course.sync(folder)
    assert len(first.added) == 3
    assert first.pages == 18
    assert course.verify() == []
    before = state(course)
    assert first.passages == len(before)

    again = course.sync(folder)
    assert (len(again.unchanged), again.passages) == (3, 0)
    assert state(course) == before

    make_pdf(folder / "sub" / "new.pdf", "Penguins huddle together against the antarctic wind.")
    make_pdf(folder / "02-memory.pdf", "Nothing but marmalade on this page.")
    (folder / "03-concurrency-and-storage.pdf").unlink()
    report = course.sync(folder)
    assert report.added == ["sub/new.pdf"]
    assert report.changed == ["02-memory.pdf"]
    assert report.removed == ["03-concurrency-and-storage.pdf"]
    assert course.verify() == []
    for method in METHODS:
        assert course.search("penguins in antarctic wind", 1, method=method)[0].passage.document == "sub/new.pdf"
        found = {hit.passage.document for hit in course.search("page table deadlock journaling", 50, method=method)}
        assert "03-concurrency-and-storage.pdf" not in found
    texts = "".join(text for text, _, _ in state(course).values())
    assert "translation lookaside" not in texts  # the old text of the changed file


def test_a_file_saved_again_without_change_is_unchanged(folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    (folder / "02-memory.pdf").touch()
    assert len(course.sync(folder).unchanged) == 3


def test_bad_files_are_named_and_the_rest_is_indexed(folder: Path, make_pdf: MakePdf) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 truncated")
    writer = pypdf.PdfWriter(clone_from=folder / "02-memory.pdf")
    writer.encrypt(user_password="secret", algorithm="AES-256")
    writer.write(folder / "locked.pdf")
    course = Course("os")
    report = course.sync(folder)
    assert len(report.added) == 3
    assert set(report.failed) == {"broken.pdf", "locked.pdf"}
    assert "password" in report.failed["locked.pdf"]
    again = course.sync(folder)
    assert again.failed == report.failed  # still said, and read no second time
    assert again.passages == 0
    make_pdf(folder / "broken.pdf", "Mended, with a word about gardening.")
    assert course.sync(folder).changed == ["broken.pdf"]
    assert {record.status for record in course.documents()} == {"indexed", "encrypted"}


def test_a_file_that_goes_bad_takes_its_old_passages_with_it(folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    (folder / "02-memory.pdf").write_bytes(b"not a PDF any more")
    assert "02-memory.pdf" in course.sync(folder).failed
    assert all(hit.passage.document != "02-memory.pdf" for hit in course.search("page table entry", 20))
    assert course.verify() == []


@pytest.mark.parametrize("method", list(METHODS))
def test_search_finds_the_page(operating_systems: Course, method: str) -> None:
    hits = operating_systems.search("bits of a page table entry: dirty, present, writable", 3, method=method)
    assert hits[0].passage.document == "02-memory.pdf"
    assert hits[0].passage.page_first == 2
    assert "dirty" in hits[0].passage.text
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.passage.id for hit in hits}) == 3


def test_a_search_for_anything_ends_well(operating_systems: Course) -> None:
    for query in (
        "",
        "   ",
        "the of and",
        '"quoted" AND (x OR y) NEAR* -z',
        "NOT",
        "'; DROP TABLE passages; --",
        "日本語",
    ):
        assert len(operating_systems.search(query, 2)) <= 2


def test_courses_live_side_by_side_and_one_is_removed_alone(tmp_path: Path, make_pdf: MakePdf) -> None:
    for name, text in {
        "birds": "A heron waits in shallow water.",
        "rocks": "Granite holds quartz and feldspar.",
    }.items():
        make_pdf(tmp_path / name / "a.pdf", text)
        Course(name).sync(tmp_path / name)
    assert course_names() == ["birds", "rocks"]
    assert "Granite" in Course.open("rocks").search("heron", 1)[0].passage.text
    Course.open("birds").remove()
    assert course_names() == ["rocks"]
    assert Course.open("rocks").verify() == []
    assert Course("birds").sync(tmp_path / "birds").added == ["a.pdf"]


def test_what_the_user_can_mend_is_said(tmp_path: Path, folder: Path, make_pdf: MakePdf) -> None:
    with pytest.raises(CourseError, match="no course 'nope'; index one: mcqa index"):
        Course.open("nope")
    with pytest.raises(CourseError, match="does not exist"):
        Course("x").sync(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="no course file in"):
        Course("x").sync(tmp_path / "empty")
    make_pdf(tmp_path / "blank" / "a.pdf", "#rect()")
    with pytest.raises(CourseError, match=r"nothing could be indexed.*a\.pdf: no page has text"):
        Course("x").sync(tmp_path / "blank")
    assert course_names() == []
    for name in ("../up", "a/b", "", ".hidden", "trailing "):
        with pytest.raises(CourseError, match="cannot be a course name"):
            Course(name)
    Course("lectures").sync(folder)
    with pytest.raises(CourseError, match="did you mean 'lectures'"):
        Course.open("lecture")
    other = make_pdf(tmp_path / "other" / "a.pdf", "Another course.").parent
    with pytest.raises(CourseError, match="follows"):
        Course("lectures").sync(other)
    assert Course("lectures").sync(other, rebuild=True).added == ["a.pdf"]


def test_a_folder_that_moved_is_followed(tmp_path: Path, folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    moved = folder.rename(tmp_path / "moved")
    assert len(course.sync(moved).unchanged) == 3
    assert course.folder == moved


def test_a_copy_of_the_folder_is_followed_and_other_files_are_not(tmp_path: Path, folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert len(course.sync(copy).unchanged) == 3
    assert course.folder == copy
    (folder / "02-memory.pdf").unlink()
    with pytest.raises(CourseError, match="follows"):
        course.sync(folder)
    assert len(course.documents()) == 3


def test_an_index_of_another_embedder_is_refused_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course("os")
    course.sync(folder)
    monkeypatch.setattr("ingest.course.DEFAULT_EMBEDDER", "another-embedder")
    for act in (lambda: Course.open("os"), lambda: Course("os").sync(folder)):
        with pytest.raises(IndexMismatchError, match="embedder all-MiniLM-L6-v2, but this is another-embedder.*--rebuild"):
            act()
    assert len(Course("os").sync(folder, rebuild=True).added) == 3
    Course.open("os")


def test_a_damaged_database_says_how_to_come_back(home: Path, folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    for file in (home / "courses" / "os").glob("index.sqlite3*"):
        file.write_bytes(b"garbage" * 1000)
    with pytest.raises(CourseError, match="--rebuild"):
        Course.open("os")
    assert len(Course("os").sync(folder, rebuild=True).added) == 3
    assert course.verify() == []


def test_a_second_sync_of_a_busy_course_is_told(home: Path, folder: Path) -> None:
    Course("os").sync(folder)
    with (
        FileLock(home / "courses" / "os" / "lock"),
        pytest.raises(CourseError, match="being indexed by"),
    ):
        Course("os").sync(folder)


def test_progress_runs_from_nothing_to_all(folder: Path) -> None:
    seen: list[Progress] = []
    report = Course("os").sync(folder, on_progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert (seen[-1].pages, seen[-1].passages) == (report.pages, report.passages)


def test_vectors_without_a_passage_are_never_found_and_get_swept(folder: Path) -> None:
    course = Course("os")
    course.sync(folder)
    store = course._store
    ids = store.passage_ids()
    # As after a kill between the vectors and the manifest: the vectors are there, the passages are not listed.
    with sqlite3.connect(store._database) as db:
        (key,) = db.execute("SELECT content FROM documents WHERE path = '02-memory.pdf'").fetchone()
        db.execute("DELETE FROM passages WHERE content = ?", (key,))
        db.execute("DELETE FROM lexical WHERE rowid NOT IN (SELECT row FROM passages)")
        db.execute("DELETE FROM documents WHERE path = '02-memory.pdf'")
        db.execute("DELETE FROM contents WHERE key = ?", (key,))
        db.execute("INSERT INTO meta VALUES ('unfinished', 'yes')")
    db.close()
    assert all(hit.passage.document != "02-memory.pdf" for hit in course.search("page table entry", 20, method="dense"))
    assert course.verify()
    (folder / "02-memory.pdf").unlink()
    course.sync(folder)
    assert course.verify() == []
    assert len(store.passage_ids()) < len(ids)


def test_a_renamed_course_is_found_under_its_new_name_only(folder: Path, make_pdf: MakePdf) -> None:
    Course("os").sync(folder)
    before = state(Course("os"))
    renamed = Course.open("os").rename("operating systems")
    assert course_names() == ["operating systems"]
    assert state(renamed) == before
    assert renamed.search("page table", 1)[0].passage.document == "02-memory.pdf"
    assert renamed.verify() == []
    assert len(renamed.sync(folder).unchanged) == 3
    Course("birds").sync(make_pdf(folder.parent / "birds" / "a.pdf", "Herons wade.").parent)
    with pytest.raises(CourseError, match="already"):
        Course.open("birds").rename("operating systems")
    with pytest.raises(CourseError, match="cannot be a course name"):
        Course.open("birds").rename("../birds")


def test_a_renamed_course_takes_its_uploads_along(make_pdf: MakePdf) -> None:
    make_pdf(Course("birds").material / "a.pdf", "Herons wade.")
    Course("birds").sync(Course("birds").material)
    renamed = Course.open("birds").rename("herons")
    assert renamed.folder == renamed.material
    assert renamed.file("a.pdf").is_file()
    assert renamed.sync(renamed.folder).unchanged == ["a.pdf"]
