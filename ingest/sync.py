"""Bring an index to hold exactly what a folder holds: the plan, and carrying it out, whatever happens on the way."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ingest.chunk import Piece, SplitSettings, split
from ingest.document import DocumentText
from ingest.embed import Embedder
from ingest.errors import CourseError, UnreadableDocumentError
from ingest.read import SUFFIXES, UNSUPPORTED, FileRead, PagesRead, ReadOptions, read_documents
from ingest.store import Content, DocumentRecord, Store

_EMBED_BATCH = 512  # passages between two reports of progress
_READING = 0.2  # the share of a file's work that reading is; embedding is nearly all the rest


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sync stands: files done of all that need work, pages read and passages embedded so far.

    `fraction` is how far the whole is, from 0 to 1, by the files' sizes; `document` is the file at work.
    `seconds_left` is an estimate, None at the start.
    """

    document: str
    files_done: int
    files_total: int
    pages: int
    passages: int
    fraction: float
    passages_per_second: float = 0.0
    seconds_left: float | None = None

    @property
    def words(self) -> str:
        """The numbers in words, for a progress bar."""
        file = f"file {min(self.files_done + 1, self.files_total)}/{self.files_total}"
        rate = f" ({self.passages_per_second:.0f}/s)" if self.passages_per_second else ""
        return f"{file}, {self.pages} pages, {self.passages} passages{rate}"


@dataclass(slots=True)
class SyncPlan:
    """What a sync of a folder would do. Documents by path; `renamed` and `duplicates` map a path to the one it equals.

    `removed` holds the documents whose files are gone, those renamed aside. `failed` are files that could not be read
    before and have not changed since.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    known: int = 0

    @property
    def counts(self) -> str:
        """How many documents of each kind there are, in words, as in "3 new, 1 removed"; failed ones are not counted."""
        kinds = {
            "new": self.added, "changed": self.changed, "renamed": self.renamed, "duplicate": self.duplicates,
            "removed": self.removed, "unchanged": self.unchanged,
        }  # fmt: skip
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)

    @property
    def removes_most(self) -> bool:
        """Whether more than half of the documents in the index would go."""
        return 2 * len(self.removed) > self.known > 0


@dataclass(slots=True)
class SyncReport(SyncPlan):
    """What a sync did; `failed` maps every file that gave no text to the reason.

    Pages and passages are those written; `embedded` of the passages needed a new vector.
    """

    pages: int = 0
    passages: int = 0
    embedded: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Material:
    """The files of a folder, by path relative to it, with the hash of their content ("" where they cannot be opened)."""

    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    def key(self, name: str) -> str:
        """Return the key of a file's content: the same bytes are the same content, if the same reader takes them."""
        kind = Path(name).suffix.lower()
        return f"{self.hashes[name]}{kind}" if self.hashes[name] else f"unreadable:{name}"


def check_folder(folder: Path) -> None:
    """Raise CourseError where `folder` is none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise CourseError(f"{folder} {what}; give the folder that holds the course's files")


def find_material(folder: Path) -> Material:
    """Return the course files under `folder`, subfolders included, sorted; hidden ones and Office's lock files aside.

    Raises CourseError where `folder` is none.
    """
    check_folder(folder)
    files = {
        _shown(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES | UNSUPPORTED
        and not path.name.startswith("~$")
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    }
    return Material(dict(sorted(files.items())), {name: _sha256(path) for name, path in files.items()})


def make_plan(material: Material, known: Mapping[str, DocumentRecord], options: ReadOptions, retry: bool) -> SyncPlan:
    """Compare the folder with the manifest `known` (by path). `retry` reads again what could not be read before."""
    plan = SyncPlan(known=len(known))
    # What is worth reading again does not count as held.
    held = {record.content: record for record in known.values() if not _worth_reading_again(record, options, retry)}
    keys = {name: material.key(name) for name in material.files}
    unchanged = {name for name, key in keys.items() if key in held and name in known and known[name].content == key}
    holders = {keys[name]: name for name in sorted(unchanged, reverse=True)}
    plan.removed = [path for path in known if path not in material.files]
    for name, key in keys.items():
        if name in unchanged and held[key].status == "indexed":
            plan.unchanged.append(name)
        elif key in held:
            gone = None if name in unchanged else next((path for path in plan.removed if known[path].content == key), None)
            if gone is not None:
                plan.removed.remove(gone)
            # A file with a known content is the old one under a new name where that name is gone or holds something else
            # now, and a duplicate where it stays.
            if held[key].status != "indexed":
                plan.failed[name] = held[key].detail
            elif gone is None and key in holders:
                plan.duplicates[name] = holders[key]
            else:
                plan.renamed[name] = gone or held[key].path
                holders.setdefault(key, name)
        elif key in holders:
            plan.duplicates[name] = holders[key]
        else:
            (plan.changed if name in known else plan.added).append(name)
            holders[key] = name
    return plan


def apply_plan(
    store: Store,
    material: Material,
    plan: SyncPlan,
    options: ReadOptions,
    settings: SplitSettings,
    embedder: Callable[[], Embedder],
    identity: Mapping[str, str],
    on_progress: Callable[[Progress], None],
) -> SyncReport:
    """Carry out `plan` and report what came of it.

    Cheap changes of names come first, in one transaction; then each new content is read by a worker, split, embedded and
    put, the small files first so that embedding starts while the others are read.
    """
    report = SyncReport(
        renamed=plan.renamed, duplicates=dict(plan.duplicates), removed=plan.removed, unchanged=plan.unchanged,
        failed=dict(plan.failed), known=plan.known,
    )  # fmt: skip
    known = {record.path: record.content for record in store.documents()}
    paths: dict[str, list[str]] = {}  # the files of each content that has to be read
    for name in [*plan.added, *plan.changed]:
        paths[material.key(name)] = [name]
    links = {}
    for name in [*plan.duplicates, *plan.renamed, *plan.failed]:
        key = material.key(name)
        if key in paths:
            paths[key].append(name)
        elif known.get(name) != key:
            links[name] = key
    if "unfinished" in store.meta():
        store.sweep()
    gone = [path for path in known if path not in material.files]
    if not (paths or links or gone):
        store.unset_meta("unfinished")
        return report
    store.set_meta("unfinished", "yes")
    if links or gone:
        store.relink(links, gone)
    _Indexing(store, material, report, paths, plan, known, options, settings, embedder, identity, on_progress).run()
    store.unset_meta("unfinished")
    return report


class _Indexing:
    """The part of a sync that reads, splits, embeds and stores."""

    def __init__(
        self,
        store: Store,
        material: Material,
        report: SyncReport,
        paths: dict[str, list[str]],
        plan: SyncPlan,
        known: Mapping[str, str],
        options: ReadOptions,
        settings: SplitSettings,
        embedder: Callable[[], Embedder],
        identity: Mapping[str, str],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._known = {name: known[name] for name in plan.changed}  # the contents they had
        self._store, self._material, self._report = store, material, report
        self._paths, self._plan, self._options, self._settings = paths, plan, options, settings
        self._embedder, self._identity, self._on_progress = embedder, identity, on_progress
        self._sizes = {name[0]: _size(material.files[name[0]]) for name in paths.values()}
        self._parts = dict.fromkeys(self._sizes, 0.0)  # how far each file is, from 0 to 1
        self._pages: Counter[str] = Counter()
        self._done = 0
        self._started = time.perf_counter()
        self._embedding_seconds = 0.0

    def run(self) -> None:
        todo = sorted(self._sizes, key=lambda name: (self._sizes[name], name))
        self._tell(todo[0] if todo else "")
        unsupported = [name for name in todo if Path(name).suffix.lower() in UNSUPPORTED]
        for name in unsupported:
            suffix = Path(name).suffix
            reason = f"{suffix} files are not read; save it as PDF (or .docx, .pptx, .html, .md, .txt)"
            self._store_text(name, UnreadableDocumentError("unsupported", reason))
        readable = [(name, self._material.files[name]) for name in todo if name not in unsupported]
        for event in read_documents(readable, self._options) if readable else ():
            if isinstance(event, PagesRead):
                self._pages[event.name] = event.done
                self._parts[event.name] = _READING * event.done / max(1, event.total)
                self._tell(event.name)
            else:
                self._finish(event)
        self._tell("", fraction=1.0)

    def _finish(self, event: FileRead) -> None:
        expected = self._material.hashes[event.name]
        if expected and _sha256(self._material.files[event.name]) != expected:
            # Storing this under the hash of any bytes would be a lie that no later sync notices.
            changed = UnreadableDocumentError("stopped", "it changed while it was read; index the folder again")
            self._store_text(event.name, changed, known_bytes=False)
        else:
            self._store_text(event.name, event.result)

    def _store_text(self, name: str, result: DocumentText | UnreadableDocumentError, *, known_bytes: bool = True) -> None:
        key, sha256 = self._material.key(name), self._material.hashes[name]
        files = self._paths[key]
        if not known_bytes:
            key, sha256 = f"changed:{name}", ""
        if isinstance(result, UnreadableDocumentError):
            self._store.put(Content(key, sha256, result.status, result.reason), files)
            for path in files:
                self._report.failed[path] = result.reason
                self._report.duplicates.pop(path, None)
        else:
            pieces = split(result.pages, self._settings, self._embedder().count_tokens)
            self._pages[name] = len(result.pages)
            vectors = self._embed(name, pieces)
            empty = [page.number for page in result.pages if not page.text]
            readers = Counter(page.reader for page in result.pages if page.reader)
            content = Content(
                key, sha256, "indexed", _remarks(result, empty, self._options.ocr), result.unit,
                ", ".join(f"{reader} {count}" for reader, count in readers.most_common()),
                len(result.pages), len(empty), len(pieces),
            )  # fmt: skip
            self._store.put(content, files, result.pages, self._ids(key, pieces), pieces, vectors)
            (self._report.changed if name in self._plan.changed else self._report.added).append(name)
            self._report.pages += content.pages
            self._report.passages += content.passages
        self._done += 1
        self._parts[name] = 1.0
        self._tell(name)

    def _embed(self, name: str, pieces: list[Piece]) -> np.ndarray:
        """Return the vectors of `pieces`; those whose text stood in the file before it changed are taken from there."""
        known = self._store.vectors(self._known[name]) if name in self._known else {}
        new = list(dict.fromkeys(piece.text for piece in pieces if piece.text not in known))
        for start in range(0, len(new), _EMBED_BATCH):
            texts = new[start : start + _EMBED_BATCH]
            began = time.perf_counter()
            known.update(zip(texts, self._embedder().encode(texts), strict=True))
            self._embedding_seconds += time.perf_counter() - began
            self._report.embedded += len(texts)
            self._parts[name] = _READING + (1 - _READING) * (start + len(texts)) / len(new)
            self._tell(name)
        return np.stack([known[piece.text] for piece in pieces])

    def _ids(self, key: str, pieces: list[Piece]) -> list[str]:
        made_from = json.dumps([key, dict(self._identity)], sort_keys=True)
        return [hashlib.sha256(f"{made_from}\0{piece.start}\0{piece.end}".encode()).hexdigest()[:32] for piece in pieces]

    def _tell(self, name: str, fraction: float | None = None) -> None:
        if fraction is None:
            whole = sum(self._sizes.values())
            fraction = sum(self._sizes[file] * part for file, part in self._parts.items()) / max(1, whole)
        elapsed = time.perf_counter() - self._started
        left = elapsed * (1 - fraction) / fraction if fraction > 0.02 else None
        rate = self._report.embedded / self._embedding_seconds if self._embedding_seconds else 0.0
        self._on_progress(
            Progress(name, self._done, len(self._sizes), self._pages.total(), self._report.embedded, fraction, rate, left)
        )


def _worth_reading_again(record: DocumentRecord, options: ReadOptions, retry: bool) -> bool:
    if record.status == "encrypted" and options.password:
        return True
    if options.ocr and "ocr" not in record.readers and (record.status == "no text" or record.empty_pages):
        return True
    return retry and record.status != "indexed"


def _remarks(document: DocumentText, empty: list[int], ocr: bool) -> str:
    if not empty:
        return ""
    remedy = "" if ocr or document.unit != "page" else " (a scan? --ocr reads it)"
    return f"no text on {_numbers(empty, document.unit or 'page')}{remedy}"


def _numbers(numbers: list[int], unit: str) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    return f"{unit}{'s' if len(numbers) > 1 else ''} {shown}"


def _size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


def _shown(path: Path) -> str:
    """Return a path as a document's name: with "/", and what is no text in it (an old disk's encoding) as U+FFFD."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def _sha256(path: Path) -> str:
    """Return the hash of a file's content, or an empty string where it cannot be opened (reading it will say why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
