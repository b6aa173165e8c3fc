"""Course: a named index over one folder of PDFs. The only face of this package that others use."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ingest.chunk import Piece, SplitSettings, split
from ingest.embed import DEFAULT_EMBEDDER, load_embedder
from ingest.errors import CourseError, IndexMismatchError, UnreadableDocumentError, did_you_mean
from ingest.home import ensure_folder, home
from ingest.pdf import DocumentText, read_pdf
from ingest.search import METHODS
from ingest.store import DocumentRecord, Passage, Store

_FORMAT = "1"  # of what is on disk; a change here asks users to rebuild
_EMBED_BATCH = 128  # passages between two reports of progress
_NAME = re.compile(r"[^\W_][\w .-]{0,63}")


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found. `score` orders the hits of one search; it is not comparable between searches."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sync stands: files done of all that need work, and pages and passages so far.

    `fraction` is how far the whole is, from 0 to 1; `document` is the file at work.
    """

    document: str
    files_done: int
    files_total: int
    pages: int
    passages: int
    fraction: float


@dataclass(slots=True)
class SyncReport:
    """What a sync did: documents by path, `failed` with the reason, and what was read and written."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    pages: int = 0
    passages: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> str:
        """How many documents of each kind there are, in words, as in "3 new, 1 removed"; failed ones are not counted."""
        kinds = {"new": self.added, "changed": self.changed, "removed": self.removed, "unchanged": self.unchanged}
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)


class Course:
    """A named index. `Course(name)` touches no file; `Course.open(name)` insists that it was indexed."""

    def __init__(self, name: str, *, settings: SplitSettings | None = None) -> None:
        """Raise CourseError where `name` could not be a folder's name. `settings` matter when the course is indexed."""
        if not _NAME.fullmatch(name) or name.endswith((".", " ")):
            raise CourseError(f"'{name}' cannot be a course name; use letters, digits, spaces, '-', '_' and '.', at most 64")
        self.name = name
        self.settings = settings or SplitSettings()
        self._store = Store(_courses_folder() / name)

    @classmethod
    def open(cls, name: str, *, check: bool = True) -> "Course":
        """Return the indexed course `name`; raises CourseError where there is none.

        Raises IndexMismatchError where something else built it; `check=False` opens it all the same, to list or remove it.
        """
        course = cls(name)
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
        return Path(self._store.meta()["folder"])

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

    @staticmethod
    def warm_up() -> None:
        """Load what `search` needs, so that the first search is as fast as the others."""
        load_embedder()

    def search(self, query: str, limit: int = 5, *, method: str = "hybrid") -> list[Hit]:
        """Return the `limit` passages that fit `query` best, best first; `method` is a key of `ingest.search.METHODS`."""
        ranked = METHODS[method](self._store, query, limit)
        passages = self._store.passages([id_ for id_, _ in ranked])
        return [Hit(passages[id_], score) for id_, score in ranked if id_ in passages]

    def verify(self) -> list[str]:
        """Check the index against itself; returns one sentence for each problem."""
        return self._store.verify()

    def remove(self) -> None:
        """Delete the index. The PDFs it was made from stay where they are, those uploaded to `material` too."""
        with self._locked():
            self._store.discard()
        (self._store.folder / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # not empty: uploads are kept
            self._store.folder.rmdir()

    def sync(
        self, folder: Path, *, rebuild: bool = False, on_progress: Callable[[Progress], None] = lambda _: None
    ) -> SyncReport:
        """Make the index hold exactly the PDFs under `folder`, subfolders included, and report what that took.

        Files are compared by content. A PDF that cannot be read is reported and the rest is indexed. `rebuild` starts
        from an empty index. Raises CourseError where the folder is missing or holds no PDF, where none of its PDFs
        gives text, where the course follows another folder with other files, or where another sync is running.
        """
        started = time.perf_counter()
        folder = folder.expanduser().resolve()
        files = _pdfs(folder)
        with self._locked():
            if rebuild:
                self._store.discard()
            new = not self._store.exists
            hashes = {name: _sha256(path) for name, path in files.items()}
            self._prepare(folder, hashes)
            report = self._apply(files, hashes, on_progress)
            useless = all(record.status != "indexed" for record in self.documents())
            if useless and new:
                self._store.discard()  # a course that never held anything is none
        report.seconds = time.perf_counter() - started
        if useless:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in report.failed.items())
            raise CourseError(f"nothing could be indexed from {folder}: {reasons}")
        return report

    def _apply(self, files: dict[str, Path], hashes: dict[str, str], on_progress: Callable[[Progress], None]) -> SyncReport:
        known = {record.path: record for record in self._store.documents()}
        report = SyncReport()
        todo = []
        for name, path in files.items():
            if name in known and known[name].sha256 == hashes[name]:
                if known[name].status == "indexed":
                    report.unchanged.append(name)
                else:
                    report.failed[name] = known[name].detail
            else:
                todo.append((name, path))
        gone = sorted(set(known) - set(files))
        if "unfinished" in self._store.meta():
            self._store.sweep()
        if todo or gone:
            self._store.set_meta("unfinished", "yes")
        for done, (name, path) in enumerate(todo):

            def tell(pages: int, passages: int, part: float, *, name: str = name, done: int = done) -> None:
                fraction = (done + part) / len(todo)
                on_progress(Progress(name, done, len(todo), report.pages + pages, report.passages + passages, fraction))

            record = self._index(name, path, hashes[name], tell)
            if record.status == "indexed":
                (report.changed if name in known else report.added).append(name)
                report.pages += record.pages
                report.passages += record.passages
            else:
                report.failed[name] = record.detail
        for name in gone:
            self._store.remove(name)
            report.removed.append(name)
        if todo or gone:
            self._store.unset_meta("unfinished")
            on_progress(Progress("", len(todo), len(todo), report.pages, report.passages, 1.0))
        return report

    def _index(self, name: str, path: Path, sha256: str, tell: Callable[[int, int, float], None]) -> DocumentRecord:
        """Read, split, embed and store one file; a file that cannot be read is stored as such."""
        tell(0, 0, 0.0)
        try:
            document = read_pdf(path)
        except UnreadableDocumentError as error:
            record = DocumentRecord(name, sha256, error.status, error.reason, 0, 0)
            self._store.put(record, [], [], [], np.empty((0, 0), np.float32))
            return record
        tell(len(document.pages), 0, 0.1)
        embedder = load_embedder()
        pieces = split(document.pages, self.settings, embedder.count_tokens)
        vectors = []
        for start in range(0, len(pieces), _EMBED_BATCH):
            vectors.append(embedder.encode([piece.text for piece in pieces[start : start + _EMBED_BATCH]]))
            done = min(start + _EMBED_BATCH, len(pieces))
            tell(len(document.pages), done, 0.1 + 0.9 * done / len(pieces))
        record = DocumentRecord(name, sha256, "indexed", _remarks(document), len(document.pages), len(pieces))
        self._store.put(record, document.pages, self._ids(record, pieces), pieces, np.concatenate(vectors))
        return record

    def _ids(self, record: DocumentRecord, pieces: list[Piece]) -> list[str]:
        made_from = json.dumps([record.path, record.sha256, self._identity()], sort_keys=True)
        return [hashlib.sha256(f"{made_from}\0{piece.start}\0{piece.end}".encode()).hexdigest()[:32] for piece in pieces]

    def _identity(self) -> dict[str, str]:
        """Return what shaped the index; one built by anything else cannot be searched or extended."""
        return {"format": _FORMAT, "embedder": DEFAULT_EMBEDDER, "settings": self.settings.model_dump_json()}

    def _check_identity(self) -> None:
        meta = self._store.meta()
        words = {"format": "index format", "embedder": "embedder", "settings": "passage settings"}
        for key, expected in self._identity().items():
            if meta.get(key) != expected:
                raise IndexMismatchError(
                    f"course '{self.name}' was indexed with {words[key]} {meta.get(key)}, but this is {expected}; "
                    f'rebuild it: mcqa index "{meta.get("folder", "FOLDER")}" --course "{self.name}" --rebuild'
                )

    def _prepare(self, folder: Path, hashes: dict[str, str]) -> None:
        """Create the index, or check that it is this folder's: the one it follows, the same moved, or a copy of it."""
        if not self._store.exists:
            self._store.create({**self._identity(), "folder": str(folder)})
            return
        self._check_identity()
        followed = self.folder
        if followed != folder:
            is_copy = hashes == {record.path: record.sha256 for record in self._store.documents()}
            if followed.is_dir() and not is_copy:
                raise CourseError(
                    f"course '{self.name}' follows {followed}, not {folder}; choose another name with --course, "
                    "or let it follow the new folder with --rebuild"
                )
            self._store.set_meta("folder", str(folder))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the course's lock; raises CourseError at once where another sync holds it."""
        from filelock import FileLock, Timeout

        ensure_folder(self._store.folder)
        try:
            with FileLock(self._store.folder / "lock", timeout=0):
                yield
        except Timeout as error:
            raise CourseError(f"course '{self.name}' is being indexed by another process; try again when it is done") from error


def course_names() -> list[str]:
    """Return the names of all indexed courses, sorted."""
    folder = _courses_folder()
    return sorted(entry.name for entry in folder.iterdir() if Store(entry).exists) if folder.is_dir() else []


def _courses_folder() -> Path:
    return home() / "courses"


def _pdfs(folder: Path) -> dict[str, Path]:
    """Return the PDFs under `folder` by their path relative to it, with forward slashes, sorted."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise CourseError(f"{folder} {what}; give the folder that holds the course's PDFs")
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() == ".pdf" and not path.name.startswith(".") and path.is_file()
    }
    if not files:
        raise CourseError(f"no PDF in {folder}; put the course's PDFs there, or give another folder")
    return dict(sorted(files.items()))


def _sha256(path: Path) -> str:
    """Return the hash of a file's content, or an empty string where it cannot be opened (reading it will say why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _remarks(document: DocumentText) -> str:
    empty = [page.number for page in document.pages if not page.text]
    return f"no text on {_numbers(empty)}" if empty else ""


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    return f"page{'s' if len(numbers) > 1 else ''} {shown}"
