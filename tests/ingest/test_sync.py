"""Bringing an index to what a folder holds: changes of names, questions before losses, and whatever goes wrong on the way."""

import dataclasses
import json
import os
import random
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import HashEmbedder, prose
from filelock import FileLock

from ingest.course import Course, course_names
from ingest.errors import CourseError, UserError
from ingest.read import ReadOptions
from ingest.search import METHODS
from ingest.store import EVERYTHING, Passage
from ingest.sync import Progress, SyncPlan, SyncReport

pytestmark = pytest.mark.usefixtures("home")
Seen = dict[str, set[str]]  # the ids of the passages that can be found of each document


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of four small files."""
    target = tmp_path / "notes"
    target.mkdir()
    for name in ("birds.txt", "rocks.txt", "ships.md", "trees.md"):
        (target / name).write_text(prose(name), encoding="utf-8")
    return target


def a_course(name: str = "os", pause: float = 0.0) -> Course:
    return Course(name, embedder=HashEmbedder(pause))


def embedded(course: Course, act: Callable[[], object]) -> int:
    """Return how many texts `act` has the course embed."""
    embedder = course._given_embedder
    assert isinstance(embedder, HashEmbedder)
    before = embedder.encoded
    act()
    return embedder.encoded - before


def passages(course: Course) -> dict[str, Passage]:
    return course._store.passages(course._store.passage_ids())


def seen(course: Course) -> dict[str, Seen]:
    """Return what a search for everything finds, by method and document; each file with the same content counts."""
    store, vector = course._store, HashEmbedder().encode(["anything"])[0]
    found: dict[str, Seen] = {"dense": defaultdict(set), "lexical": defaultdict(set)}
    for method, ranked in {
        "dense": store.dense(vector, 10_000, EVERYTHING),
        "lexical": store.lexical("common page memory thread", 10_000, EVERYTHING),
    }.items():
        for passage in store.passages([id_ for id_, _ in ranked]).values():
            for document in (passage.document, *passage.copies):
                found[method][document].add(passage.id)
    return found


def vectors(course: Course) -> set[str]:
    with course._store._chroma() as collection:
        return set(collection.get(include=[])["ids"])


def whole_state(course: Course) -> dict[str, Any]:
    """Return all that a course holds, ready to be compared."""
    store = course._store
    return {
        "documents": course.documents(),
        "passages": passages(course),
        "pages": {record.path: course.pages(record.path) for record in course.documents()},
        "words": {
            query: [(id_, round(score, 6)) for id_, score in store.lexical(query, 1000, EVERYTHING)]
            for query in ("common", "lampriver stonecloud", "birds", "paging")
        },
        "vectors": vectors(course),
        "seen": seen(course),
        "problems": course.verify(),
    }


def done(report: SyncPlan) -> dict[str, Any]:
    """Return the parts of a report that a plan has, too."""
    return {field.name: getattr(report, field.name) for field in dataclasses.fields(SyncPlan)}


# Names and duplicates


def test_a_renamed_file_keeps_its_passages_and_nothing_is_embedded(folder: Path) -> None:
    course = a_course()
    course.sync(folder)
    before = set(passages(course))
    (folder / "02-memory.pdf").rename(folder / "memory.pdf")
    (folder / "part two").mkdir()
    (folder / "03-concurrency-and-storage.pdf").rename(folder / "part two" / "storage.pdf")
    reports: list[SyncReport] = []
    assert embedded(course, lambda: reports.append(course.sync(folder))) == 0
    assert reports[0].renamed == {
        "memory.pdf": "02-memory.pdf",
        "part two/storage.pdf": "03-concurrency-and-storage.pdf",
    }
    assert (reports[0].added, reports[0].changed, reports[0].removed, reports[0].passages) == ([], [], [], 0)
    assert set(passages(course)) == before == vectors(course)
    assert {record.path for record in course.documents()} == set(seen(course)["dense"])
    assert "02-memory.pdf" not in seen(course)["dense"]
    assert course.search("page table entry", 1, method="lexical")[0].passage.document == "memory.pdf"
    assert course.verify() == []


def test_of_a_changed_file_only_the_passages_that_are_new_are_embedded(notes: Path) -> None:
    course = a_course()
    course.sync(notes)
    file = notes / "birds.txt"
    file.write_text(f"{prose('birds.txt')}\n\nHummingbirds hover.", encoding="utf-8")
    reports: list[SyncReport] = []
    count = embedded(course, lambda: reports.append(course.sync(notes)))
    assert reports[0].changed == ["birds.txt"]
    assert 0 < count == reports[0].embedded < reports[0].passages / 2
    untouched = a_course("untouched")
    untouched.sync(notes)
    assert whole_state(course) == whole_state(untouched)


def test_two_files_that_swap_names_are_not_read_again(notes: Path) -> None:
    course = a_course()
    course.sync(notes)
    before = seen(course)["dense"]
    (notes / "birds.txt").rename(notes / "third.txt")
    (notes / "rocks.txt").rename(notes / "birds.txt")
    (notes / "third.txt").rename(notes / "rocks.txt")
    assert embedded(course, lambda: course.sync(notes)) == 0
    after = seen(course)["dense"]
    assert (after["birds.txt"], after["rocks.txt"]) == (before["rocks.txt"], before["birds.txt"])
    assert course.verify() == []


def test_the_same_bytes_twice_are_held_once_and_found_under_both_names(notes: Path) -> None:
    shutil.copy(notes / "birds.txt", notes / "aves.txt")
    course = a_course()
    report = course.sync(notes)
    assert report.duplicates == {"birds.txt": "aves.txt"}
    assert len(vectors(course)) == len(passages(course)) == report.passages
    hit = course.search("birds.txt", 1, method="lexical")[0].passage
    assert (hit.document, hit.copies) == ("aves.txt", ("birds.txt",))
    for method in METHODS:
        hit = course.search("birds.txt", 1, method=method, documents=["birds.txt"])[0].passage
        assert (hit.document, hit.copies) == ("birds.txt", ("aves.txt",))

    (notes / "aves.txt").unlink()
    assert embedded(course, lambda: course.sync(notes)) == 0
    hit = course.search("birds.txt", 1, method="lexical")[0].passage
    assert (hit.document, hit.copies) == ("birds.txt", ())
    shutil.copy(notes / "birds.txt", notes / "again.txt")
    assert embedded(course, lambda: course.sync(notes)) == 0
    assert course.search("birds.txt", 1, method="lexical", documents=["again.txt"])
    assert course.verify() == []


def test_the_same_bytes_for_two_readers_are_two_contents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# A heading\n\nThe *starred* word.", encoding="utf-8")
    shutil.copy(tmp_path / "a.txt", tmp_path / "a.md")
    course = a_course()
    report = course.sync(tmp_path)
    assert (sorted(report.added), report.duplicates) == (["a.md", "a.txt"], {})
    texts = {passage.document: passage.text for passage in passages(course).values()}
    assert "*starred*" in texts["a.txt"]
    assert "*starred*" not in texts["a.md"]
    assert course.verify() == []


def test_files_that_are_not_read_are_named_and_files_that_are_no_material_are_ignored(notes: Path) -> None:
    (notes / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    (notes / "open.odt").write_bytes(b"PK")
    for ignored in ("~$essay.docx", ".hidden.md", "picture.png", ".git/note.md", "slides/.checkpoints/copy.md"):
        (notes / ignored).parent.mkdir(parents=True, exist_ok=True)
        (notes / ignored).write_text("not material", encoding="utf-8")
    course = a_course()
    report = course.sync(notes)
    assert set(report.failed) == {"old.doc", "open.odt"}
    assert all("are not read; save it as PDF" in reason for reason in report.failed.values())
    assert sorted(record.path for record in course.documents() if record.status != "unsupported") == report_names(report)
    assert course.sync(notes).failed == report.failed


def report_names(report: SyncReport) -> list[str]:
    return sorted([*report.added, *report.changed, *report.unchanged])


def test_odd_texts_and_odd_names_do_not_stop_a_sync(notes: Path) -> None:
    odd = {
        "empty": b"",
        "spaces": b" \n\t ",
        "null": b"\0",
        "separator": b"\x1c\x1d",
        "wide": "\u3000\u200b".encode(),
        "bom": b"\xef\xbb\xbf",
    }
    for name, content in odd.items():
        (notes / f"{name}.txt").write_bytes(content)
    named_in_latin_1 = os.fsencode(notes) + b"/na\xefve.txt"
    Path(os.fsdecode(named_in_latin_1)).write_text(prose("naive"), encoding="utf-8")
    course = a_course()
    report = course.sync(notes)
    assert {f"{name}.txt" for name in odd} == set(report.failed)
    assert "na\N{REPLACEMENT CHARACTER}ve.txt" in report.added
    assert len(course.sync(notes).unchanged) == 5
    assert course.verify() == []


# Plans and questions


def test_a_plan_says_what_the_sync_then_does_and_changes_nothing(notes: Path) -> None:
    course = a_course()
    assert course_names() == []
    assert course.plan(notes).added == ["birds.txt", "rocks.txt", "ships.md", "trees.md"]
    assert course_names() == []
    course.sync(notes)
    (notes / "birds.txt").write_text(prose("other birds"), encoding="utf-8")
    (notes / "rocks.txt").rename(notes / "stones.txt")
    (notes / "ships.md").unlink()
    shutil.copy(notes / "trees.md", notes / "trees again.md")
    (notes / "new.txt").write_text(prose("new"), encoding="utf-8")
    (notes / "bad.docx").write_bytes(b"no document")
    before = whole_state(course)
    plan = course.plan(notes)
    assert whole_state(course) == before
    assert plan.counts == "2 new, 1 changed, 1 renamed, 1 duplicate, 1 removed, 1 unchanged"
    report = course.sync(notes)
    assert set(report.failed) == {"bad.docx"}
    plan.added.remove("bad.docx")  # only reading tells
    assert done(report) == {**done(plan), "failed": report.failed}

    again, report = course.plan(notes), course.sync(notes)
    assert done(report) == done(again)
    assert report.counts == "5 unchanged"
    assert set(again.failed) == {"bad.docx"}
    assert course.plan(notes, retry=True).changed == ["bad.docx"]
    assert len(course.plan(notes, rebuild=True).added) == 5


def test_losing_more_than_half_asks_first(notes: Path) -> None:
    course = a_course()
    course.sync(notes)
    before = whole_state(course)
    for name in ("birds.txt", "rocks.txt", "ships.md"):
        (notes / name).unlink()
    with pytest.raises(CourseError, match="would lose 3 of its 4 documents.* --yes"):
        course.sync(notes)
    assert whole_state(course) == before
    asked: list[SyncPlan] = []

    def refuse(plan: SyncPlan) -> bool:
        asked.append(plan)
        return False

    with pytest.raises(CourseError, match="--yes"):
        course.sync(notes, confirm=refuse)
    assert asked[0].removed == ["birds.txt", "rocks.txt", "ships.md"]
    assert whole_state(course) == before
    assert len(course.sync(notes, confirm=lambda plan: True).removed) == 3
    assert [record.path for record in course.documents()] == ["trees.md"]

    (notes / "trees.md").unlink()
    with pytest.raises(CourseError, match="would lose 1 of its 1 documents.* --yes"):
        course.sync(notes)
    assert course.search("common", 1)
    course.sync(notes, confirm=lambda plan: True)
    assert (course.documents(), course.search("common", 1), vectors(course), course.verify()) == ([], [], set(), [])
    (notes / "trees.md").write_text(prose("trees"), encoding="utf-8")
    assert course.sync(notes).added == ["trees.md"]


def test_losing_half_and_renaming_all_asks_nothing(notes: Path) -> None:
    course = a_course()
    (notes / "bad.docx").write_bytes(b"no document")
    (notes / "old.odt").write_bytes(b"PK")
    (notes / "scan.rtf").write_bytes(b"{")
    course.sync(notes)
    (notes / "sub").mkdir()
    for file in [path for path in notes.iterdir() if path.is_file()]:
        file.rename(notes / "sub" / file.name)
    report = course.sync(notes)
    assert (len(report.renamed), len(report.failed), report.removed) == (4, 3, [])
    assert {record.path.split("/")[0] for record in course.documents()} == {"sub"}
    for name in ("birds.txt", "rocks.txt", "ships.md"):
        (notes / "sub" / name).unlink()
    assert len(course.sync(notes).removed) == 3


def test_progress_never_falls_and_ends_at_one(notes: Path, folder: Path) -> None:
    shutil.copy(folder / "02-memory.pdf", notes)
    told: list[Progress] = []
    report = a_course(pause=0.01).sync(notes, on_progress=told.append)
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert [progress.files_done for progress in told] == sorted(progress.files_done for progress in told)
    assert {progress.files_total for progress in told} == {5}
    assert any("pages" in progress.words and "passages" in progress.words for progress in told)
    assert told[-1].words.startswith(f"file 5/5, {report.pages} pages, {report.passages} passages")
    left = [progress.seconds_left for progress in told if progress.seconds_left is not None]
    assert min(left) >= 0
    assert (told[0].seconds_left, left[-1]) == (None, 0.0)


def test_a_file_that_changes_while_it_is_read_is_not_stored_under_its_old_hash(notes: Path) -> None:
    course = a_course()
    old, new = prose("birds.txt"), prose("birds after the change")

    def change(_: Progress) -> None:
        (notes / "birds.txt").write_text(new, encoding="utf-8")

    report = course.sync(notes, on_progress=change)
    assert set(report.failed) == {"birds.txt"}
    assert "changed while it was read; index the folder again" in report.failed["birds.txt"]
    assert not any(passage.document == "birds.txt" for passage in passages(course).values())
    (notes / "birds.txt").write_text(old, encoding="utf-8")  # as after a glitch: doing as told must help here, too
    assert course.sync(notes).failed == {}
    assert seen(course)["dense"]["birds.txt"]
    (notes / "birds.txt").write_text(new, encoding="utf-8")
    assert course.sync(notes).changed == ["birds.txt"]
    assert course.verify() == []


# Kills


def prepare(folder: Path) -> None:
    for name in ("same.txt", "changed.md", "moved.txt", "removed.txt", "copied.txt", "left.txt", "right.txt"):
        (folder / name).write_text(prose(name, 5), encoding="utf-8")


def change_everything(folder: Path) -> None:
    (folder / "changed.md").write_text(prose("the changed one", 7), encoding="utf-8")
    (folder / "sub").mkdir()
    (folder / "moved.txt").rename(folder / "sub" / "there.txt")
    (folder / "removed.txt").unlink()
    shutil.copy(folder / "copied.txt", folder / "copy.txt")
    (folder / "left.txt").rename(folder / "third.txt")
    (folder / "right.txt").rename(folder / "left.txt")
    (folder / "third.txt").rename(folder / "right.txt")
    for name in ("new.md", "other.txt"):
        (folder / name).write_text(prose(name, 4), encoding="utf-8")
    shutil.copy(folder / "new.md", folder / "new again.md")


def in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.setenv("MCQA_HOME", str(home))
    return a_course()


def half_seen(found: dict[str, Seen], old: dict[str, Seen], new: dict[str, Seen]) -> list[str]:
    """Return the documents of which a search found neither all of the old nor all of the new."""
    return [
        f"{method}: {document}"
        for method, documents in found.items()
        for document in {*documents, *old[method], *new[method]}
        if documents.get(document, set()) not in (old[method].get(document, set()), new[method].get(document, set()))
    ]


@pytest.mark.parametrize("begun", [True, False], ids=["of a course", "of a new course"])
def test_a_sync_killed_at_any_moment_leaves_old_or_new_and_the_next_one_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    kills = 30 if begun else 10
    material, prior = tmp_path / "material", tmp_path / "prior"
    material.mkdir()
    prepare(material)
    (prior / "courses").mkdir(parents=True)
    old: dict[str, Seen] = {"dense": {}, "lexical": {}}
    if begun:
        course = in_home(prior, monkeypatch)
        course.sync(material)
        old = seen(course)
    change_everything(material)

    untouched = tmp_path / "untouched"
    shutil.copytree(prior, untouched)
    started = time.monotonic()
    process = fakes.process(fakes.sync, "os", material, untouched, tmp_path / "outcome", 0.02)
    process.join()
    seconds = time.monotonic() - started
    assert json.loads((tmp_path / "outcome").read_text()) is None
    expected = whole_state(in_home(untouched, monkeypatch))
    assert expected["problems"] == []
    assert not any(passage.text == "" for passage in expected["passages"].values())

    draw = random.Random(f"kills {begun}")
    workers: list[int] = []
    stages = set()
    for kill in range(kills):
        home = tmp_path / f"killed-{kill}"
        shutil.copytree(prior, home)
        process = fakes.process(fakes.sync, "os", material, home, tmp_path / "outcome", 0.02)
        time.sleep(seconds * (kill + draw.random()) / kills)
        workers += fakes.children(process.pid or 0)
        process.kill()
        process.join()
        course = in_home(home, monkeypatch)
        if course._store.exists:
            found = seen(course)
            assert half_seen(found, old, expected["seen"]) == [], f"after {kill + 1} kills"
            stages.add(json.dumps(sorted(found["lexical"])))
        course.sync(material)
        assert whole_state(course) == expected, f"after {kill + 1} kills"
        course.remove()  # closes its files
    assert len(stages) > 1  # the moments were spread over the work
    assert not any(fakes.is_running(worker) for worker in workers)


def test_an_index_whose_removal_was_killed_is_begun_anew(notes: Path, home: Path) -> None:
    course = a_course()
    course.sync(notes)
    expected = whole_state(course)
    (notes / "birds.txt").rename(notes / "z.txt")  # another course than the one half removed
    (home / "courses" / "os" / "index.sqlite3").unlink()
    (home / "courses" / "os" / "index.sqlite3-wal").write_bytes(b"left over" * 500)
    course.sync(notes)
    (notes / "z.txt").rename(notes / "birds.txt")
    course.sync(notes)
    assert whole_state(course) == expected


# Several processes


def wait_for(met: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_searches_see_old_or_new_of_each_document_while_another_process_syncs(notes: Path, home: Path, tmp_path: Path) -> None:
    for number in range(12):
        (notes / f"more {number}.txt").write_text(prose(f"more {number}", 3), encoding="utf-8")
    course = a_course()
    course.sync(notes)
    old = hits_by_document(course)
    for number in range(12):
        (notes / f"more {number}.txt").write_text(prose(f"changed {number}", 4), encoding="utf-8")
    (notes / "birds.txt").unlink()
    process = fakes.process(fakes.sync, "os", notes, home, tmp_path / "outcome", 0.05)

    def search_on(_: int) -> list[Seen]:
        found = []
        while process.is_alive():
            found.append(hits_by_document(course))
        return found

    with ThreadPoolExecutor(3) as threads:  # as a web server does
        states = [state for found in threads.map(search_on, range(3)) for state in found]
    process.join()
    assert json.loads((tmp_path / "outcome").read_text()) is None
    new = hits_by_document(course)
    assert set(old) - set(new) == {"birds.txt"}
    assert all(len(texts) == 4 for document, texts in new.items() if document.startswith("more"))
    for state in states:
        for document in {*state, *old, *new}:
            assert state.get(document, set()) in (old.get(document, set()), new.get(document, set())), document
    assert len({json.dumps({name: sorted(texts) for name, texts in state.items()}, sort_keys=True) for state in states}) > 2
    assert set(seen(course)["dense"]) == set(new)
    assert course.verify() == []


def hits_by_document(course: Course) -> Seen:
    found: Seen = defaultdict(set)
    for hit in course.search("common paragraph", 1000, method="hybrid"):
        found[hit.passage.document].add(hit.passage.text)
    return found


def test_an_open_course_finds_what_another_process_rebuilt(notes: Path, home: Path, tmp_path: Path) -> None:
    course = a_course()
    course.sync(notes)
    for name in ("birds.txt", "rocks.txt"):  # more changes here than the other process will make
        (notes / name).write_text(prose(f"{name} changed"), encoding="utf-8")
        course.sync(notes)
    assert hits_by_document(course)
    shutil.rmtree(home / "courses" / "os")
    (notes / "ships.md").write_text(prose("other ships"), encoding="utf-8")
    fakes.process(fakes.sync, "os", notes, home, tmp_path / "outcome").join()
    assert {document: len(ids) for document, ids in seen(course)["dense"].items()} == {
        document: len(ids) for document, ids in seen(course)["lexical"].items()
    }
    assert set(seen(course)["dense"]) == {"birds.txt", "rocks.txt", "ships.md", "trees.md"}
    assert course.verify() == []


def test_a_second_sync_is_told_who_holds_the_course_or_waits(notes: Path, home: Path, tmp_path: Path) -> None:
    process = fakes.process(fakes.sync, "os", notes, home, tmp_path / "outcome", 0.3)
    wait_for((home / "courses" / "os" / "lock.json").exists)
    with pytest.raises(CourseError, match=f"is being indexed by process {process.pid} on .* since .*--wait"):
        a_course().sync(notes)
    course = a_course()
    report = course.sync(notes, wait=True)
    process.join()
    assert json.loads((tmp_path / "outcome").read_text()) is None
    assert len(report.unchanged) == 4
    assert course.verify() == []
    with FileLock(home / "courses" / "os" / "lock"), pytest.raises(CourseError, match="being indexed by"):
        course.remove()


def test_workers_end_when_their_parent_is_killed_even_one_that_hangs(notes: Path, home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")  # opening it hangs; a folder's pipes are ignored, so this one is read directly
    files = [("pipe.txt", tmp_path / "pipe.txt")]
    process = fakes.process(fakes.read_one_by_one, files, ReadOptions(), tmp_path / "outcome")
    wait_for(lambda: bool(fakes.children(process.pid or 0)))
    workers = fakes.children(process.pid or 0)
    time.sleep(0.5)  # it is at the file
    process.kill()
    process.join()
    wait_for(lambda: not any(fakes.is_running(worker) for worker in workers), 5)


# Disks


@pytest.mark.parametrize("kilobytes", [4, 30, 100, 200, 280, 600])
def test_a_full_disk_is_said_in_one_line_and_the_next_sync_succeeds(
    notes: Path, home: Path, tmp_path: Path, kilobytes: int
) -> None:
    for number in range(4):
        (notes / f"long {number}.txt").write_text(prose(f"long {number}", 150), encoding="utf-8")
    process = fakes.process(fakes.sync, "os", notes, home, tmp_path / "outcome", 0.0, kilobytes * 1000)
    process.join(30)
    assert process.exitcode == 0
    raised = json.loads((tmp_path / "outcome").read_text())
    assert raised["type"] == "UserError", raised["words"]
    assert "space" in raised["words"]
    assert str(home / "courses" / "os") in raised["words"]
    assert "\n" not in raised["words"]
    course = a_course()
    course.sync(notes)
    assert {record.status for record in course.documents()} == {"indexed"}
    assert course.verify() == []
    assert set(seen(course)["dense"]) == {path.name for path in notes.iterdir()}


def test_a_data_folder_that_cannot_be_is_said(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    monkeypatch.setenv("MCQA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UserError, match="cannot create the data folder .*MCQA_HOME"):
        a_course().sync(notes)


def damage_database(folder: Path) -> None:
    for file in folder.glob("index.sqlite3*"):
        file.write_bytes(b"garbage" * 1000)


def damage_middle_of_database(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite3") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = bytearray((folder / "index.sqlite3").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    (folder / "index.sqlite3").write_bytes(content)


def empty_database(folder: Path) -> None:
    damage_database(folder)
    (folder / "index.sqlite3").write_bytes(b"")


def damage_vectors(folder: Path) -> None:
    (folder / "chroma" / "chroma.sqlite3").write_bytes(b"garbage" * 1000)


def delete_vectors(folder: Path) -> None:
    shutil.rmtree(folder / "chroma")


def delete_vector_database(folder: Path) -> None:
    (folder / "chroma" / "chroma.sqlite3").unlink()


def delete_graph(folder: Path) -> None:
    for part in (folder / "chroma").iterdir():
        if part.is_dir():
            shutil.rmtree(part)


def damage_graph(folder: Path) -> None:
    for file in (folder / "chroma").glob("*/*.bin"):
        file.write_bytes(b"garbage" * 100)


@pytest.mark.parametrize(
    "damage",
    [
        damage_database, damage_middle_of_database, empty_database, damage_vectors, delete_vectors, delete_vector_database,
        delete_graph, damage_graph,
    ],
    ids=lambda damage: damage.__name__,
)  # fmt: skip
def test_a_damaged_index_is_healed_or_names_the_remedy_which_works(
    notes: Path, home: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for number in range(3):
        (notes / f"long {number}.txt").write_text(prose(f"long {number}", 120), encoding="utf-8")
    fakes.process(fakes.sync, "os", notes, home, tmp_path / "outcome").join()  # another process: nothing is open in this one
    damage(home / "courses" / "os")
    course = a_course()
    problems = said(course.verify)
    outcomes = {method: found_or_said(course, method) for method in METHODS}
    again = said(lambda: [*course.sync(notes).failed])
    for outcome in (*outcomes.values(), again):
        assert outcome == [] or "--rebuild" in outcome[0]
    if any([*outcomes.values(), again]):
        assert problems, "a course that cannot be searched must not pass for sound"
    course.sync(notes, rebuild=True)
    assert course.verify() == []
    assert all(found_or_said(course, method) == [] for method in METHODS)


def said(act: Callable[[], Collection[str]]) -> list[str]:
    try:
        return list(act())
    except CourseError as error:
        return [str(error)]


def found_or_said(course: Course, method: str) -> list[str]:
    """Return nothing where a search finds a passage of each of the documents, else what was wrong."""
    try:
        found = {hit.passage.document for hit in course.search("common paragraph", 1000, method=method)}
    except CourseError as error:
        return [str(error)]
    return [] if len(found) == 7 else [f"found only {sorted(found)}"]
