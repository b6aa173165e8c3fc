"""Course: a named index over one folder of material. The only face of this package that others use."""

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.chunk import SplitSettings, document_text
from ingest.document import Page
from ingest.embed import DEFAULT_EMBEDDER, Embedder, load_embedder
from ingest.errors import CourseError, IndexMismatchError, did_you_mean
from ingest.home import ensure_folder, home, write_atomically
from ingest.pageimage import PageImage, render_page
from ingest.read import ReadOptions
from ingest.search import METHODS, Evidence, Index, evidence, for_each_option, relevances, without_near_duplicates
from ingest.store import EVERYTHING, DocumentRecord, Filter, Passage, Store
from ingest.sync import Material, Progress, SyncPlan, SyncReport, apply_plan, check_folder, find_material, make_plan

if TYPE_CHECKING:
    from ingest.retriever import CourseRetriever

_FORMAT = "2"  # of what is on disk; a change here asks users to rebuild
_RERANKED = 30  # how many of the first hits a cross-encoder orders anew
_PATIENCE = 10.0  # for how many seconds a search starts again whenever a sync changed what it was reading
_DEFAULTS = ReadOptions()
_NAME = re.compile(r"[^\W_][\w .-]{0,63}")


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found. `score` orders the hits of one search and is not comparable between searches.

    `relevance` is: how probably, from 0 to 1, the passage is about what was asked (ingest.search.relevances).
    """

    passage: Passage
    score: float
    relevance: float


class Course:
    """A named index. `Course(name)` touches no file; `Course.open(name)` insists that it was indexed."""

    def __init__(self, name: str, *, settings: SplitSettings | None = None, embedder: Embedder | None = None) -> None:
        """Raise CourseError where `name` could not be a folder's name.

        `settings` matter when the course is first indexed, and default to what it was indexed with. `embedder` defaults to
        the packaged one, loaded when it is needed.
        """
        if not _NAME.fullmatch(name) or name.endswith((".", " ")):
            raise CourseError(f"'{name}' cannot be a course name; use letters, digits, spaces, '-', '_' and '.', at most 64")
        self.name = name
        self._settings = settings
        self._given_embedder = embedder
        self._store = Store(_courses_folder() / name)

    @classmethod
    def open(cls, name: str, *, check: bool = True, embedder: Embedder | None = None) -> "Course":
        """Return the indexed course `name`; raises CourseError where there is none.

        Raises IndexMismatchError where something else built it; `check=False` opens it all the same, to list or remove it.
        """
        course = cls(name, embedder=embedder)
        if not course._store.exists:
            known = course_names()
            remedy = did_you_mean(name, known) or f"; courses: {', '.join(known)}" if known else ""
            raise CourseError(f"no course '{name}'{remedy or f'; index one: mcqa index FOLDER --course {name!r}'}")
        if check:
            course._check_identity()
        return course

    @property
    def folder(self) -> Path:
        """The folder of material that the course follows."""
        return self._store.folder / self._store.meta()["folder"]

    @property
    def material(self) -> Path:
        """A folder inside the application's data where uploads for this course can live."""
        return self._store.folder / "material"

    def documents(self) -> list[DocumentRecord]:
        """Return the documents the index knows, by path, those that could not be read included."""
        return self._store.documents()

    def fingerprint(self) -> str:
        """Return a hash of what the index holds; it changes when a document or a setting does."""
        state = [self._identity(), [[record.path, record.sha256] for record in self.documents()]]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def pages(self, document: str) -> list[Page]:
        """Return the clean text of a document's pages, in order, with what read each of them."""
        return self._store.page_texts(document)

    def file(self, document: str) -> Path:
        """Return the file of a document; raises CourseError where the course holds none, or the file is gone."""
        known = [record.path for record in self.documents()]
        if document not in known:
            raise CourseError(f"course '{self.name}' holds no document '{document}'{did_you_mean(document, known)}")
        path = self.folder / document
        if not path.is_file():
            raise CourseError(f"{path} is not there any more; bring it back, or index the course again")
        return path

    def page_image(self, document: str, page: int, text: str = "") -> PageImage:
        """Return a picture of a PDF's page (from 1), what it holds of `text` marked.

        Raises CourseError where there is no such document, and UnreadableDocumentError where its page cannot be drawn.
        """
        return render_page(self.file(document), page, text)

    def warm_up(self) -> None:
        """Load what `search` needs, so that the first search is as fast as the others."""
        self._embedder()

    def search(
        self,
        query: str,
        limit: int = 5,
        *,
        method: str = "hybrid",
        options: Sequence[str] = (),
        documents: Collection[str] | None = None,
        pages: tuple[int, int] | None = None,
        neighbors: int = 0,
        reranker: str | None = None,
    ) -> list[Hit]:
        """Return the `limit` passages that fit `query` best, best first.

        `method` is a key of `ingest.search.METHODS`. With `options`, the query is searched for together with each option
        and with all of them, and the rankings are fused. `documents` and `pages` (first and last) restrict where to look;
        raises CourseError on a document that the course does not hold. Passages that nearly repeat a better one are left
        out. `neighbors` joins that many passages before and after to each hit; hits that then meet become one.
        `reranker` is the name or folder of a cross-encoder that orders the first hits anew.
        """
        index = Index(self._store, self._embedder(), self._filter(documents, pages))
        find = METHODS[method]
        depth = max(limit, _RERANKED if reranker else 0) + 10  # some are near-duplicates
        whole = "\n".join((query, *options))
        started = time.monotonic()
        while True:
            generation = self._store.generation()
            try:
                ranked = for_each_option(find, index, query, options, limit)[:depth] if options else find(index, whole, depth)
                found = self._store.passages([id_ for id_, _ in ranked], index.where.documents)
            except CourseError:
                if self._store.generation() == generation or time.monotonic() > started + _PATIENCE:
                    raise
                continue  # a sync in another process replaced what we were reading
            if self._store.generation() == generation or time.monotonic() > started + _PATIENCE:
                break
        scores = dict(ranked)
        passages = without_near_duplicates([found[id_] for id_, _ in ranked if id_ in found])
        if reranker:
            from ingest.rerank import rerank

            passages = passages[: max(limit, _RERANKED)]
            marks = rerank(reranker, whole, [passage.text for passage in passages])
            scores = {passage.id: mark for passage, mark in zip(passages, marks, strict=True)}
            passages.sort(key=lambda passage: -scores[passage.id])
        if neighbors:
            passages = list(islice(self._joined(passages, neighbors), limit))
        passages = passages[:limit]
        related = relevances(index, whole, passages)
        return [Hit(p, scores[p.id], relevance) for p, relevance in zip(passages, related, strict=True)]

    def search_each(self, question: str, options: Sequence[str], limit: int = 1, *, method: str = "hybrid") -> list[list[Hit]]:
        """Return for each option the `limit` best passages for question and option together."""
        return [self.search(f"{question}\n{option}", limit, method=method) for option in options]

    def evidence(self, question: str, options: Sequence[str]) -> Evidence:
        """Return what the course's passages say for each option of a question."""
        return evidence(Index(self._store, self._embedder()), question, options)

    def as_retriever(self, **search: Any) -> "CourseRetriever":
        """Return this course as a LangChain retriever; `search` holds arguments of `search`, as in limit=3."""
        from ingest.retriever import CourseRetriever

        return CourseRetriever(course=self, search=search)

    def verify(self) -> list[str]:
        """Check the index against itself; returns one sentence for each problem."""
        return self._store.verify()

    def remove(self) -> None:
        """Delete the index. The PDFs it was made from stay where they are, those uploaded to `material` too."""
        with self._locked():
            self._store.discard()
        for file in ("lock", "lock.json"):
            (self._store.folder / file).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: uploads are kept
            self._store.folder.rmdir()

    def rename(self, name: str) -> "Course":
        """Give the course another name, under which its uploads lie from then on as well; returns it.

        Raises CourseError where the name is taken or cannot be one, and while the course is being indexed.
        """
        renamed = Course(name, settings=self._settings, embedder=self._given_embedder)
        if name == self.name:
            return self
        if renamed._store.folder.exists() and not renamed._store.folder.samefile(self._store.folder):
            raise CourseError(f"there is a course or a folder '{name}' already; choose another name")
        with self._locked():
            self._store.move(renamed._store.folder)
        for file in ("lock", "lock.json"):
            (renamed._store.folder / file).unlink(missing_ok=True)
        return renamed

    def plan(self, folder: Path, *, rebuild: bool = False, retry: bool = False, options: ReadOptions = _DEFAULTS) -> SyncPlan:
        """Return what `sync` with the same arguments would do, and change nothing."""
        folder = folder.expanduser().resolve()
        material = find_material(folder)
        if rebuild or not self._store.exists:
            self._check_not_empty(folder, material)
            return make_plan(material, {}, options, retry)
        self._check_identity()
        self._check_folder(folder, material)
        return self._planned(material, retry, options)

    def sync(
        self,
        folder: Path,
        *,
        rebuild: bool = False,
        retry: bool = False,
        options: ReadOptions = _DEFAULTS,
        confirm: Callable[[SyncPlan], bool] = lambda _: False,
        wait: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> SyncReport:
        """Make the index hold exactly the course files under `folder`, subfolders included, and report what that took.

        Files are compared by content; one that cannot be read is reported and the rest is indexed. `rebuild` starts from
        an empty index, `retry` reads again what could not be read before. Where more than half of the documents would go,
        `confirm` is asked with the plan. `wait` waits for another sync of this course instead of refusing. Raises
        CourseError where the folder is missing or holds nothing, where none of its files gives text, where the course
        follows another folder with other files, where another sync is running, and where a removal was not confirmed.
        """
        started = time.perf_counter()
        folder = folder.expanduser().resolve()
        check_folder(folder)  # a wrong one is said before anything is made
        with self._locked(wait):
            material = find_material(folder)
            if rebuild:
                self._check_not_empty(folder, material)
                self._store.discard()
            new = not self._store.exists
            if new:
                self._check_not_empty(folder, material)
            else:
                self._check_identity()
                self._check_folder(folder, material)
            plan = SyncPlan() if new else self._planned(material, retry, options)
            if plan.removes_most and not confirm(plan):
                raise CourseError(
                    f"course '{self.name}' would lose {len(plan.removed)} of its {plan.known} documents, which are not in "
                    f"{folder} any more; bring the folder back, or confirm it: "
                    f'mcqa index "{folder}" --course "{self.name}" --yes'
                )
            if new:
                self._store.create({**self._identity(), "folder": self._recorded(folder)})
                plan = self._planned(material, retry, options)
            elif self._store.meta()["folder"] != self._recorded(folder):
                self._store.set_meta("folder", self._recorded(folder))
            report = apply_plan(
                self._store, material, plan, options, self.settings, self._embedder, self._identity(), on_progress
            )
            useless = bool(material.files) and all(record.status != "indexed" for record in self.documents())
            if useless and new:
                self._store.discard()  # a course that never held anything is none
        report.seconds = time.perf_counter() - started
        if useless:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in report.failed.items())
            raise CourseError(f"nothing could be indexed from {folder}: {reasons}")
        return report

    @property
    def settings(self) -> SplitSettings:
        """How passages are cut: as given, else as the course was indexed with, else the default."""
        if self._settings is None and self._store.exists:
            with suppress(ValueError, KeyError):
                return SplitSettings.model_validate_json(self._store.meta()["settings"])
        return self._settings or SplitSettings()

    def _recorded(self, folder: Path) -> str:
        """Return how the index remembers a folder: that of the uploads from the index, with which it moves."""
        return self.material.name if folder == self.material.resolve() else str(folder)

    def _planned(self, material: Material, retry: bool, options: ReadOptions) -> SyncPlan:
        return make_plan(material, {record.path: record for record in self.documents()}, options, retry)

    def _embedder(self) -> Embedder:
        return self._given_embedder or load_embedder()

    def _filter(self, documents: Collection[str] | None, pages: tuple[int, int] | None) -> Filter:
        if documents is None and pages is None:
            return EVERYTHING
        if documents is not None:
            known = [record.path for record in self.documents()]
            for document in documents:
                if document not in known:
                    raise CourseError(f"course '{self.name}' holds no document '{document}'{did_you_mean(document, known)}")
        first, last = pages or (1, EVERYTHING.last)
        if not 1 <= first <= last:
            raise CourseError(f"pages {first} to {last} are no range; give the first and the last, from 1")
        return Filter(None if documents is None else frozenset(documents), first, last)

    def _joined(self, passages: Sequence[Passage], reach: int) -> Iterator[Passage]:
        """Yield passages with their neighbors joined to them; one that touches an earlier one was yielded with it."""
        taken: list[Passage] = []
        for passage in passages:
            around = self._store.passages(self._store.neighbors(passage.id, reach)).values()
            if not around or any(
                t.document == passage.document and t.start < passage.end and passage.start < t.end for t in taken
            ):
                continue
            start, end = min(p.start for p in around), max(p.end for p in around)
            for other in taken:  # what an earlier hit took is not shown twice
                if other.document == passage.document and other.start < end and start < other.end:
                    start, end = (other.end, end) if other.start <= start else (start, other.start)
            text = document_text(self._store.page_texts(passage.document))[start:end]
            joined = replace(
                passage, text=text.strip(), start=start, end=end,
                page_first=min(p.page_first for p in around), page_last=max(p.page_last for p in around),
            )  # fmt: skip
            taken.append(joined)
            yield joined

    def _identity(self) -> dict[str, str]:
        """Return what shaped the index; one built by anything else cannot be searched or extended."""
        embedder = self._given_embedder.name if self._given_embedder else DEFAULT_EMBEDDER
        return {"format": _FORMAT, "embedder": embedder, "settings": self.settings.model_dump_json()}

    def _check_identity(self) -> None:
        meta = self._store.meta()
        words = {"format": "index format", "embedder": "embedder", "settings": "passage settings"}
        for key, expected in self._identity().items():
            if meta.get(key) != expected:
                raise IndexMismatchError(
                    f"course '{self.name}' was indexed with {words[key]} {meta.get(key)}, but this is {expected}; "
                    f'rebuild it: mcqa index "{self.folder}" --course "{self.name}" --rebuild'
                )

    def _check_folder(self, folder: Path, material: Material) -> None:
        """Check that the index is this folder's: the one it follows, the same moved, or a copy of it."""
        followed = self.folder
        if followed.resolve() == folder:
            return
        here = {name: material.key(name) for name in material.files}
        is_copy = here == {record.path: record.content for record in self.documents()}
        if followed.is_dir() and not is_copy:
            raise CourseError(
                f"course '{self.name}' follows {followed}, not {folder}; choose another name with --course, "
                "or let it follow the new folder with --rebuild"
            )

    @staticmethod
    def _check_not_empty(folder: Path, material: Material) -> None:
        if not material.files:
            kinds = "PDF, DOCX, PPTX, HTML, Markdown or text"
            raise CourseError(f"no course file in {folder}; put the course's {kinds} files there, or give another folder")

    @contextmanager
    def _locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the course's lock; raises CourseError where another sync holds it, unless `wait`."""
        from filelock import FileLock, Timeout

        ensure_folder(self._store.folder)
        holder = self._store.folder / "lock.json"
        try:
            with FileLock(self._store.folder / "lock", timeout=-1 if wait else 0):
                since = datetime.now().astimezone().isoformat(timespec="seconds")
                write_atomically(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}))
                yield
        except Timeout as error:
            raise CourseError(
                f"course '{self.name}' is being indexed by {_described(holder)}; try again when it is done, or wait: --wait"
            ) from error
        except OSError as error:
            raise CourseError(
                f"cannot write to {self._store.folder} ({error.strerror or error}); check its permissions and the disk's "
                "space, or set MCQA_HOME to a folder you can write to"
            ) from error


def _described(holder: Path) -> str:
    """Say who holds a course's lock, as well as its note tells."""
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {note['process']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def course_names() -> list[str]:
    """Return the names of all indexed courses, sorted."""
    folder = _courses_folder()
    return sorted(entry.name for entry in folder.iterdir() if Store(entry).exists) if folder.is_dir() else []


def _courses_folder() -> Path:
    return home() / "courses"
