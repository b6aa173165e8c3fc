"""A course's index on disk: vectors in Chroma; manifest, text and lexical index in SQLite.

SQLite decides what exists. A passage is written to Chroma first and becomes visible when the SQLite transaction that lists
it commits; what Chroma holds and SQLite does not list is never returned, and is swept by the next sync. So a kill at any
point leaves either the old state of a document or the new one.
"""

import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ingest.chunk import Piece
from ingest.errors import CourseError
from ingest.pdf import Page
from ingest.words import search_terms

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL,
    pages INTEGER NOT NULL, passages INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pages (document TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (document, number));
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL, text TEXT NOT NULL,
    first_character INTEGER NOT NULL, end_character INTEGER NOT NULL, page_first INTEGER NOT NULL, page_last INTEGER NOT NULL
);
CREATE INDEX passages_by_document ON passages (document);
CREATE VIRTUAL TABLE lexical USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2');
"""
_BATCH = 1000  # ids in one call to Chroma or one SQL statement, well below the limits of both
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """One file as the manifest knows it; `status` is "indexed", or why it is not: "damaged", "encrypted", "no text".

    `detail` is what the user should know about it, in words; often empty.
    """

    path: str
    sha256: str
    status: str
    detail: str
    pages: int
    passages: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrievable piece of a document. `start` and `end` count characters in the document's joined page texts."""

    id: str
    document: str
    text: str
    start: int
    end: int
    page_first: int
    page_last: int

    @property
    def pages(self) -> str:
        """The page or pages in words, as in "p. 3" or "pp. 3-4"."""
        if self.page_first == self.page_last:
            return f"p. {self.page_first}"
        return f"pp. {self.page_first}-{self.page_last}"


class Store:
    """The index in one folder. Methods raise CourseError with the way back where the files are damaged or not writable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = folder / "index.sqlite3"

    @property
    def exists(self) -> bool:
        """Whether an index was ever begun in this folder."""
        return self._database.is_file()

    def create(self, meta: dict[str, str]) -> None:
        """Begin an empty index that remembers `meta` (what built it)."""
        with self._connect(mode="rwc") as db:
            db.executescript("BEGIN;" + _SCHEMA)
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    def discard(self) -> None:
        """Delete the index and everything in it."""
        with self._translated():
            # The manifest goes first: without it, what is left after a kill counts as no index at all.
            for file in sorted(self.folder.glob(self._database.name + "*")):
                file.unlink()
            _close_chroma_client(self.folder / "chroma")
            shutil.rmtree(self.folder / "chroma", ignore_errors=True)

    def meta(self) -> dict[str, str]:
        """Return what `create` and `set_meta` recorded."""
        with self._connect() as db:
            return dict(db.execute("SELECT key, value FROM meta"))

    def set_meta(self, key: str, value: str) -> None:
        """Record `value` under `key`."""
        with self._connect() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def unset_meta(self, key: str) -> None:
        """Forget what was recorded under `key`."""
        with self._connect() as db:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))

    def documents(self) -> list[DocumentRecord]:
        """Return the manifest, by path."""
        with self._connect() as db:
            return [DocumentRecord(*row) for row in db.execute("SELECT * FROM documents ORDER BY path")]

    def put(
        self,
        record: DocumentRecord,
        pages: Sequence[Page],
        ids: Sequence[str],
        pieces: Sequence[Piece],
        vectors: np.ndarray,
    ) -> None:
        """Store a document in place of what was there under its path.

        `ids`, `pieces` and the rows of `vectors` (float32, one row a piece) belong together; all are empty for a
        document that could not be read.
        """
        with self._translated():
            for part in _batches(range(len(ids))):
                self._chroma().upsert(
                    ids=[ids[i] for i in part],
                    embeddings=vectors[part.start : part.stop],
                    metadatas=[{"document": record.path, **pieces[i].model_dump(exclude={"text"})} for i in part],
                )
        with self._connect() as db:
            stale = self._forget(db, record.path)
            db.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                (record.path, record.sha256, record.status, record.detail, record.pages, record.passages),
            )
            db.executemany("INSERT INTO pages VALUES (?, ?, ?)", [(record.path, p.number, p.text) for p in pages])
            for id_, piece in zip(ids, pieces, strict=True):
                row = db.execute(
                    "INSERT INTO passages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                    (id_, record.path, piece.text, piece.start, piece.end, piece.page_first, piece.page_last),
                ).lastrowid
                db.execute("INSERT INTO lexical (rowid, text) VALUES (?, ?)", (row, piece.text))
        self._delete_vectors(set(stale) - set(ids))

    def remove(self, path: str) -> None:
        """Remove a document with its pages, passages and vectors."""
        with self._connect() as db:
            stale = self._forget(db, path)
        self._delete_vectors(stale)

    def sweep(self) -> int:
        """Delete the vectors that no passage belongs to, left by an interrupted sync; returns how many there were."""
        with self._translated():
            held = set(self._chroma().get(include=[])["ids"])
        orphans = held - set(self.passage_ids())
        self._delete_vectors(orphans)
        return len(orphans)

    def passage_ids(self) -> list[str]:
        """Return the ids of all visible passages, in the order in which they were stored."""
        with self._connect() as db:
            return [id_ for (id_,) in db.execute("SELECT id FROM passages ORDER BY row")]

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """Return the visible passages among `ids`, by id."""
        columns = "id, document, text, first_character, end_character, page_first, page_last"
        found = {}
        with self._connect() as db:
            for part in _batches(ids):
                marks = ",".join("?" * len(part))
                rows = db.execute(f"SELECT {columns} FROM passages WHERE id IN ({marks})", list(part))  # noqa: S608
                found.update({row[0]: Passage(*row) for row in rows})
        return found

    def dense(self, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` (passage id, cosine similarity), nearest to `vector` (float32, one dimension) first."""
        with self._translated():
            collection = self._chroma()
            if not (count := collection.count()):
                return []
            # A few more than asked for, because vectors that no passage belongs to are dropped below.
            result = collection.query(
                query_embeddings=[vector], n_results=min(count, limit + limit // 2), include=["distances"]
            )
        ids, distances = result["ids"][0], (result["distances"] or [[]])[0]
        visible = self.passages(ids)
        return [(id_, 1 - float(d)) for id_, d in zip(ids, distances, strict=True) if id_ in visible][:limit]

    def lexical(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` (passage id, BM25 score), best first; passages that share no word with `query` are left out."""
        terms = search_terms(query)
        if not terms:
            return []
        match = " OR ".join(f'"{term}"' for term in terms)
        with self._connect() as db:
            rows = db.execute(
                "SELECT id, -bm25(lexical) FROM lexical JOIN passages ON row = lexical.rowid WHERE lexical MATCH ? "
                "ORDER BY bm25(lexical), id LIMIT ?",
                (match, limit),
            )
            return [(id_, float(score)) for id_, score in rows]

    def verify(self) -> list[str]:
        """Compare vectors, passages and manifest; returns one sentence for each disagreement, so none where all is well."""
        with self._connect() as db:
            if (state := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                return [f"the SQLite file is damaged: {state}"]
            counts = "SELECT path FROM documents WHERE passages != (SELECT count(*) FROM passages WHERE document = path)"
            problems = [f"{path}: passages are missing" for (path,) in db.execute(counts)]
        listed = set(self.passage_ids())
        with self._translated():
            held = set(self._chroma().get(include=[])["ids"])
        if listed - held:
            problems.append(f"{len(listed - held)} passages have no vector")
        if held - listed:
            problems.append(f"{len(held - listed)} vectors belong to no passage (the next sync sweeps them)")
        return problems

    def _forget(self, db: sqlite3.Connection, path: str) -> list[str]:
        rows = db.execute("SELECT row, id FROM passages WHERE document = ?", (path,)).fetchall()
        db.executemany("DELETE FROM lexical WHERE rowid = ?", [(row,) for row, _ in rows])
        db.execute("DELETE FROM passages WHERE document = ?", (path,))
        db.execute("DELETE FROM pages WHERE document = ?", (path,))
        db.execute("DELETE FROM documents WHERE path = ?", (path,))
        return [id_ for _, id_ in rows]

    def _delete_vectors(self, ids: Iterable[str]) -> None:
        with self._translated():
            for part in _batches(sorted(ids)):
                self._chroma().delete(ids=list(part))

    def _chroma(self) -> "Collection":
        # Asked for each time (a millisecond): a handle kept from before a rebuild would point at nothing.
        client = _chroma_client(self.folder / "chroma")
        return client.get_or_create_collection("passages", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})

    @contextmanager
    def _connect(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction: committed when the block ends well, else rolled back.

        The file is only made with mode "rwc": opening an index that is not there must not begin one.
        """
        address = f"{self._database.absolute().as_uri()}?mode={mode}"
        with self._translated(), closing(sqlite3.connect(address, timeout=30, uri=True)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            with db:
                yield db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the databases' own errors into one that names the folder and the way back."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error
        except Exception as error:
            if type(error).__module__.startswith("chromadb"):
                raise self._broken(error) from error
            raise

    def _broken(self, error: Exception) -> CourseError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return CourseError(
            f"the index in {self.folder} cannot be used ({reason}); check the disk's space and permissions, "
            f"then rebuild it: mcqa index FOLDER --course {self.folder.name} --rebuild"
        )


_clients: "dict[Path, ClientAPI]" = {}
_clients_lock = threading.Lock()


def _chroma_client(folder: Path) -> "ClientAPI":
    """Return this process's one client for `folder`. Chroma shares its database by path, so one must be there to close."""
    import chromadb
    from chromadb.config import Settings

    with _clients_lock:
        if folder not in _clients:
            _clients[folder] = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
        return _clients[folder]


def _close_chroma_client(folder: Path) -> None:
    with _clients_lock:
        if client := _clients.pop(folder, None):
            client.close()  # type: ignore[attr-defined]  # the interface lacks what the class has


def _batches(items: Sequence[_T]) -> Iterator[Any]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
