"""A course's index on disk: vectors in Chroma; manifest, text and lexical index in SQLite.

SQLite decides what exists. A passage is written to Chroma first and becomes visible when the SQLite transaction that lists
it commits; what Chroma holds and SQLite does not list is never returned, and is swept by the next sync. So a kill at any
point leaves either the old state of a document or the new one.
"""

import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ingest.chunk import Piece
from ingest.document import Page
from ingest.errors import CourseError, brief
from ingest.words import search_terms, terms

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection as ChromaCollection

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE contents (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL, unit TEXT NOT NULL,
    readers TEXT NOT NULL, pages INTEGER NOT NULL, empty_pages INTEGER NOT NULL, passages INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE documents (path TEXT PRIMARY KEY, content TEXT NOT NULL REFERENCES contents (key)) WITHOUT ROWID;
CREATE INDEX documents_by_content ON documents (content);
CREATE TABLE pages (
    content TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL, reader TEXT NOT NULL, PRIMARY KEY (content, number)
);
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, text TEXT NOT NULL, heading TEXT NOT NULL,
    first_character INTEGER NOT NULL, end_character INTEGER NOT NULL, page_first INTEGER NOT NULL, page_last INTEGER NOT NULL
);
CREATE INDEX passages_by_content ON passages (content, first_character);
CREATE VIRTUAL TABLE lexical USING fts5 (terms, tokenize = 'unicode61 remove_diacritics 0');
CREATE VIRTUAL TABLE lexical_words USING fts5vocab (lexical, row);
"""
_BATCH = 1000  # ids in one call to Chroma or one SQL statement, well below the limits of both
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Content:
    """What one file's bytes gave; `key` tells it from every other content, however many files hold it.

    `status` is "indexed", or why there is no text: "damaged", "encrypted", "no text", "stopped", "unsupported".
    `detail` is what the user should know about it, in words; often empty. `unit` is what a page is: "page", "slide" or "".
    `readers` says what extracted the pages, as in "pypdf 30, pdfium 2". `empty_pages` counts the pages without text.
    """

    key: str
    sha256: str
    status: str
    detail: str = ""
    unit: str = ""
    readers: str = ""
    pages: int = 0
    empty_pages: int = 0
    passages: int = 0


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """One file as the manifest knows it; the fields besides `path` are its Content's."""

    path: str
    content: str
    sha256: str
    status: str
    detail: str
    unit: str
    readers: str
    pages: int
    empty_pages: int
    passages: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrievable piece of a document. `start` and `end` count characters in the document's joined page texts.

    `document` is the file it stands in; `copies` are other files with the same content. `heading` is its place in the
    document's outline, as in "Memory › Page tables"; empty where the document has no headings.
    """

    id: str
    document: str
    text: str
    heading: str
    start: int
    end: int
    page_first: int
    page_last: int
    unit: str = "page"
    copies: tuple[str, ...] = ()

    @property
    def pages(self) -> str:
        """The page or pages in words, as in "p. 3", "pp. 3-4" or "slide 5"; empty where the document has no pages."""
        if not self.unit:
            return ""
        one, several = ("p.", "pp.") if self.unit == "page" else (self.unit, f"{self.unit}s")
        if self.page_first == self.page_last:
            return f"{one} {self.page_first}"
        return f"{several} {self.page_first}-{self.page_last}"

    @property
    def place(self) -> str:
        """Document and page in words, as in "02-memory.pdf, p. 3"."""
        return f"{self.document}, {self.pages}" if self.pages else self.document


@dataclass(frozen=True, slots=True)
class Filter:
    """Which passages a search may return: those of `documents` (None: all) that touch the pages `first` to `last`."""

    documents: frozenset[str] | None = None
    first: int = 1
    last: int = 2**31

    @property
    def is_open(self) -> bool:
        """Whether every passage passes."""
        return self.documents is None and self.first <= 1 and self.last >= 2**31


EVERYTHING = Filter()


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
        self.discard()  # what a kill may have left of an earlier one
        begun = self._database.with_name(f"{self._database.name}-begun")
        # Generations go on growing when an index is made anew, so that other processes notice that, too.
        meta = {**meta, "generation": str(time.time_ns())}
        with self._translated():
            with closing(sqlite3.connect(begun)) as db:
                db.executescript("PRAGMA journal_mode = WAL; BEGIN;" + _SCHEMA)
                db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
                db.commit()
            begun.replace(self._database)  # an index is there whole or not at all

    def discard(self) -> None:
        """Delete the index and everything in it."""
        with self._translated():
            # The manifest goes first: without it, what is left after a kill counts as no index at all.
            for file in sorted(self.folder.glob(self._database.name + "*")):
                file.unlink()
            _clients.close(self.folder / "chroma")
            shutil.rmtree(self.folder / "chroma", ignore_errors=True)

    def move(self, folder: Path) -> None:
        """Move the index, and what else lies in its folder, to `folder`, which must not exist; a store there finds it whole."""
        with self._translated():
            _clients.close(self.folder / "chroma")
            self.folder.rename(folder)

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
            rows = db.execute(
                "SELECT path, content, sha256, status, detail, unit, readers, pages, empty_pages, passages "
                "FROM documents JOIN contents ON key = content ORDER BY path"
            )
            return [DocumentRecord(*row) for row in rows]

    def put(
        self,
        content: Content,
        paths: Sequence[str],
        pages: Sequence[Page] = (),
        ids: Sequence[str] = (),
        pieces: Sequence[Piece] = (),
        vectors: np.ndarray | None = None,
    ) -> None:
        """Store a content, in place of what was there under its key, as that of the files `paths`.

        `ids`, `pieces` and the rows of `vectors` (float32, one row a piece) belong together; they are left out for a
        content that could not be read.
        """
        if vectors is not None:
            with self._chroma() as collection:
                for part in _batches(range(len(ids))):
                    places: list[Any] = [
                        {"content": content.key, "page_first": pieces[i].page_first, "page_last": pieces[i].page_last}
                        for i in part
                    ]
                    collection.upsert(ids=[ids[i] for i in part], embeddings=vectors[part.start : part.stop], metadatas=places)
        with self._connect() as db:
            stale = self._forget(db, content.key)
            db.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(content))
            db.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", [(content.key, p.number, p.text, p.reader) for p in pages])
            for id_, piece in zip(ids, pieces, strict=True):
                place = (piece.start, piece.end, piece.page_first, piece.page_last)
                row = db.execute(
                    "INSERT INTO passages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (id_, content.key, piece.text, piece.heading, *place),
                ).lastrowid
                # The nearest heading says what a passage is about, often in words that the passage does not repeat.
                words = terms(f"{piece.heading.rpartition(' › ')[2]}\n{piece.text}")
                db.execute("INSERT INTO lexical (rowid, terms) VALUES (?, ?)", (row, " ".join(words)))
            self._link(db, dict.fromkeys(paths, content.key))
            stale += self._forget_unlinked(db)
            self._next_generation(db)
        self._delete_vectors(set(stale) - set(ids))

    def relink(self, links: Mapping[str, str], gone: Iterable[str]) -> None:
        """Make each path of `links` a file with that (known) content, and forget the paths `gone`, all at once.

        Contents that no file holds any more go with their passages and vectors.
        """
        with self._connect() as db:
            self._link(db, links)
            db.executemany("DELETE FROM documents WHERE path = ?", [(path,) for path in gone])
            stale = self._forget_unlinked(db)
            self._next_generation(db)
        self._delete_vectors(stale)

    def sweep(self) -> int:
        """Delete the vectors that no passage belongs to, left by an interrupted sync; returns how many there were."""
        with self._chroma() as collection:
            held = set(collection.get(include=[])["ids"])
        orphans = held - set(self.passage_ids())
        self._delete_vectors(orphans)
        return len(orphans)

    def passage_ids(self) -> list[str]:
        """Return the ids of all visible passages, in the order in which they were stored."""
        with self._connect() as db:
            return [id_ for (id_,) in db.execute("SELECT id FROM passages ORDER BY row")]

    def passages(self, ids: Sequence[str], allowed: frozenset[str] | None = None) -> dict[str, Passage]:
        """Return the visible passages among `ids`, by id.

        Of several files with the same content, the first by name is named (the first of `allowed`, where given).
        """
        found = {}
        with self._connect() as db:
            files: dict[str, list[str]] = {}
            for part in _batches(ids):
                rows = db.execute(
                    "SELECT id, p.content, text, heading, first_character, end_character, page_first, page_last, unit "
                    f"FROM passages p JOIN contents ON key = p.content WHERE id IN ({_marks(part)})",
                    list(part),
                ).fetchall()
                for id_, content, text, heading, start, end, first, last, unit in rows:
                    if content not in files:
                        query = "SELECT path FROM documents WHERE content = ? ORDER BY path"
                        paths = [path for (path,) in db.execute(query, (content,))]
                        files[content] = sorted(paths, key=lambda path: allowed is not None and path not in allowed)
                    if holders := files[content]:
                        found[id_] = Passage(id_, holders[0], text, heading, start, end, first, last, unit, tuple(holders[1:]))
        return found

    def neighbors(self, id_: str, reach: int) -> list[str]:
        """Return the ids of the passage `id_` and of up to `reach` before and after it in its document, in order."""
        around = "SELECT id FROM passages WHERE content = ? AND first_character {} ? ORDER BY first_character {} LIMIT ?"
        with self._connect() as db:
            place = db.execute("SELECT content, first_character FROM passages WHERE id = ?", (id_,)).fetchone()
            if place is None:
                return []
            before = [row[0] for row in db.execute(around.format("<", "DESC"), (*place, reach))]
            after = [row[0] for row in db.execute(around.format(">", "ASC"), (*place, reach))]
        return [*reversed(before), id_, *after]

    def page_texts(self, document: str) -> list[Page]:
        """Return the pages of a document, in order, headings aside."""
        with self._connect() as db:
            rows = db.execute(
                "SELECT number, pages.text, reader FROM pages JOIN documents USING (content) WHERE path = ? ORDER BY number",
                (document,),
            )
            return [Page(number, text, (), reader) for number, text, reader in rows]

    def dense(self, vector: np.ndarray, limit: int, where: Filter) -> list[tuple[str, float]]:
        """Return up to `limit` (passage id, cosine similarity), nearest to `vector` (float32, one dimension) first."""
        allowed = self._contents(where)
        if allowed is not None and not allowed:
            return []
        with self._chroma() as collection:
            if not (count := collection.count()):
                return []
            asked = limit + limit // 2
            while True:
                # A few more than asked for, because vectors that no passage belongs to are dropped below.
                asked = min(count, asked)
                result = collection.query(
                    query_embeddings=[vector], n_results=asked, include=["distances"], where=_chroma_where(where, allowed)
                )
                ids, distances = result["ids"][0], (result["distances"] or [[]])[0]
                visible = self._visible(ids)
                if len(visible) >= min(limit, len(ids)) or len(ids) < asked or asked == count:
                    break
                asked *= 2  # a document is being replaced, and its unlisted vectors crowd out the listed ones
        return [(id_, 1 - float(d)) for id_, d in zip(ids, distances, strict=True) if id_ in visible][:limit]

    def vectors(self, content: str) -> dict[str, np.ndarray]:
        """Return the vectors (float32, one dimension) of the passages of the content with that key, by the passages' texts."""
        with self._connect() as db:
            texts = dict(db.execute("SELECT id, text FROM passages WHERE content = ?", (content,)).fetchall())
        found: dict[str, np.ndarray] = {}
        with self._chroma() as collection:
            for part in _batches(list(texts)):
                result = collection.get(ids=list(part), include=["embeddings"])
                held = np.asarray(result["embeddings"], dtype=np.float32)
                found.update(zip((texts[id_] for id_ in result["ids"]), held, strict=True))
        return found

    def similarities(self, vectors: np.ndarray, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the cosine similarities to `vectors`, shape (n, dimension), of each passage among `ids` that has a vector."""
        if not ids:
            return {}
        with self._chroma() as collection:
            result = collection.get(ids=list(ids), include=["embeddings"])
        if not result["ids"]:
            return {}
        stored = np.asarray(result["embeddings"], dtype=np.float32)
        norms = np.linalg.norm(stored, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        return dict(zip(result["ids"], stored @ vectors.T / np.maximum(norms, 1e-12), strict=True))

    def lexical(self, query: str, limit: int, where: Filter) -> list[tuple[str, float]]:
        """Return up to `limit` (passage id, BM25 score), best first; passages that share no word with `query` are left out."""
        words = search_terms(query)
        allowed = self._contents(where)
        if not words or (allowed is not None and not allowed):
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        with self._connect() as db:
            if where.is_open:
                # The best are chosen before their passages are looked up, which is half the work of a common word.
                rows = db.execute(
                    "SELECT id, -score FROM (SELECT rowid AS found, bm25(lexical) AS score FROM lexical "
                    "WHERE lexical MATCH ? ORDER BY score, rowid LIMIT ?) JOIN passages ON row = found ORDER BY score, id",
                    [match, limit],
                )
            else:
                inside = "" if allowed is None else f" AND content IN ({_marks(allowed)})"
                rows = db.execute(
                    "SELECT id, -bm25(lexical) AS score FROM lexical JOIN passages ON row = lexical.rowid "
                    f"WHERE lexical MATCH ? AND page_first <= ? AND page_last >= ?{inside} ORDER BY score DESC, id LIMIT ?",
                    [match, where.last, where.first, *(allowed or ()), limit],
                )
            return [(id_, float(score)) for id_, score in rows]

    def frequencies(self, words: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many passages there are, and in how many each of `words` (terms of the lexical index) stands."""
        with self._connect() as db:
            total = int(db.execute("SELECT count(*) FROM passages").fetchone()[0])
            rows = db.execute(f"SELECT term, doc FROM lexical_words WHERE term IN ({_marks(words)})", list(words))
            return total, {word: int(count) for word, count in rows}

    def generation(self) -> int:
        """Return a number that grows with every change of what can be found."""
        with self._connect() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
            return int(row[0]) if row else 0

    def verify(self) -> list[str]:
        """Compare vectors, passages and manifest; returns one sentence for each disagreement, so none where all is well."""
        with self._connect() as db:
            if (state := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                return [f"the SQLite file is damaged: {state}"]
            counts = (
                "SELECT path FROM documents JOIN contents ON key = content "
                "WHERE passages != (SELECT count(*) FROM passages p WHERE p.content = key)"
            )
            problems = [f"{path}: passages are missing" for (path,) in db.execute(counts)]
            lexical = "SELECT count(*) FROM passages WHERE row NOT IN (SELECT id FROM lexical_docsize)"
            if missing := db.execute(lexical).fetchone()[0]:
                problems.append(f"{missing} passages cannot be found by their words")
        listed = set(self.passage_ids())
        with self._chroma(check=False) as collection:
            held = set(collection.get(include=[])["ids"])
        if listed - held:
            _clients.close(self.folder / "chroma")  # so that whoever searches next is told, too
            problems.append(f"{len(listed - held)} passages have no vector")
        if held - listed:
            problems.append(f"{len(held - listed)} vectors belong to no passage (the next sync sweeps them)")
        return problems

    def _visible(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self._connect() as db:
            for part in _batches(ids):
                found.update(id_ for (id_,) in db.execute(f"SELECT id FROM passages WHERE id IN ({_marks(part)})", list(part)))
        return found

    def _contents(self, where: Filter) -> list[str] | None:
        """Return the keys of the contents that `where` lets pass, or None where all do."""
        if where.documents is None:
            return None
        with self._connect() as db:
            rows = db.execute(
                f"SELECT DISTINCT content FROM documents WHERE path IN ({_marks(where.documents)})",
                sorted(where.documents),
            )
            return [key for (key,) in rows]

    @staticmethod
    def _link(db: sqlite3.Connection, links: Mapping[str, str]) -> None:
        db.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?)", links.items())

    def _forget_unlinked(self, db: sqlite3.Connection) -> list[str]:
        unlinked = "SELECT key FROM contents WHERE key NOT IN (SELECT content FROM documents)"
        return [id_ for (key,) in db.execute(unlinked).fetchall() for id_ in self._forget(db, key)]

    @staticmethod
    def _forget(db: sqlite3.Connection, key: str) -> list[str]:
        rows = db.execute("SELECT row, id FROM passages WHERE content = ?", (key,)).fetchall()
        db.executemany("DELETE FROM lexical WHERE rowid = ?", [(row,) for row, _ in rows])
        db.execute("DELETE FROM passages WHERE content = ?", (key,))
        db.execute("DELETE FROM pages WHERE content = ?", (key,))
        db.execute("DELETE FROM contents WHERE key = ?", (key,))
        return [id_ for _, id_ in rows]

    def _next_generation(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT OR IGNORE INTO meta VALUES ('generation', '0')")
        db.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        _clients.wrote(self.folder / "chroma", int(db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0]))

    def _delete_vectors(self, ids: Iterable[str]) -> None:
        if ids:
            with self._chroma() as collection:
                for part in _batches(sorted(ids)):
                    collection.delete(ids=list(part))

    @contextmanager
    def _chroma(self, *, check: bool = True) -> "Iterator[ChromaCollection]":
        """Yield the collection of vectors, which stays open for the block; blocks must not be nested."""
        missing = 0
        with self._translated(), _clients.use(self.folder / "chroma", self.generation()) as (client, is_new):
            # Asked for each time (a millisecond): a handle kept from before a rebuild would point at nothing.
            collection = client.get_or_create_collection(
                "passages", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
            if check and is_new:
                with self._connect() as db:
                    listed = int(db.execute("SELECT count(*) FROM passages").fetchone()[0])
                missing = listed - collection.count()
            if missing <= 0:
                yield collection
        if missing > 0:
            _clients.close(self.folder / "chroma")  # so that whoever searches next is told, too
            raise self._broken(RuntimeError(f"vectors of {missing} passages are missing"))

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction: committed when the block ends well, else rolled back.

        Opening an index that is not there must not begin one.
        """
        address = f"{self._database.absolute().as_uri()}?mode=rw"
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
        return CourseError(
            f"the index in {self.folder} cannot be used ({brief(error, None)}); check the disk's space and permissions, "
            f"then rebuild it: mcqa index FOLDER --course {self.folder.name} --rebuild"
        )


class _Clients:
    """This process's Chroma clients, one a folder, each with the generation of the index that it has seen.

    An open client never notices vectors that another process writes, so it is opened again when the index has moved on
    without it. The time to open is that of reading the vectors' graph, a fraction of a second.
    """

    def __init__(self) -> None:
        self._open: dict[Path, tuple[ClientAPI, int]] = {}
        self._users: Counter[Path] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def use(self, folder: Path, generation: int) -> "Iterator[tuple[ClientAPI, bool]]":
        """Yield the client of `folder`, fresh enough for `generation`, and whether it was opened just now.

        It is not closed before the block ends, whatever other threads ask for.
        """
        with self._changed:
            is_new = False
            while (known := self._open.get(folder)) is None or known[1] < generation:
                # Chroma shares its database by path: a client opened beside an old one would be as old.
                if self._users[folder]:
                    self._changed.wait()
                    continue
                self._close(folder)
                self._open[folder] = (_opened(folder), generation)
                is_new = True
            self._users[folder] += 1
        try:
            yield known[0], is_new
        finally:
            with self._changed:
                self._users[folder] -= 1
                self._changed.notify_all()

    def wrote(self, folder: Path, generation: int) -> None:
        """Note that this process itself brought the index to `generation`: its client, if up to date, stays so."""
        with self._changed:
            known = self._open.get(folder)
            if known is not None and known[1] == generation - 1:
                self._open[folder] = (known[0], generation)
                self._changed.notify_all()

    def close(self, folder: Path) -> None:
        """Close the client of `folder`, if one is open, once nobody uses it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users[folder])
            self._close(folder)

    def _close(self, folder: Path) -> None:
        if known := self._open.pop(folder, None):
            known[0].close()  # type: ignore[attr-defined]  # the interface lacks what the class has


def _opened(folder: Path) -> "ClientAPI":
    import chromadb
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    try:
        return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    except BaseException:
        # Chroma keeps what it could not start and would hand it out for this folder ever after.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        raise


_clients = _Clients()


def _chroma_where(where: Filter, allowed: list[str] | None) -> Any:
    if where.is_open:
        return None
    conditions: list[dict[str, Any]] = [{"page_first": {"$lte": where.last}}, {"page_last": {"$gte": where.first}}]
    if allowed is not None:
        conditions.append({"content": {"$in": allowed}})
    return {"$and": conditions}


def _marks(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))


def _batches(items: Sequence[_T]) -> Iterator[Any]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
