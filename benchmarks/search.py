"""Time a search in a large index: dense, lexical, hybrid, and Course.search as a whole.

    python benchmarks/search.py [--passages N] [--queries N] [--limit N] [--data FOLDER]

The index is built directly, in documents of 500 passages. Texts are real sentences in random order, from the textbooks in
FOLDER/textbooks (default: ../shared/data or $MCQA_DATA) and from the sample courses, so that words are as rare and as common
as they really are; without the textbooks there are too few sentences for that, and the output says so. Vectors are made up,
because to embed 50,000 texts takes a quarter of an hour: random directions in three levels (subject, topic, passage), so that
each has neighbors near and far. Queries are the questions that belong to those texts, with their options; their words are
real, and their vectors lie near a random topic. They are searched in a fresh process, each method with ten first to warm up.

Prints Markdown: the median and the 95th percentile in milliseconds, without and with the time to embed the query.
"""

import argparse
import hashlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# Beside this script lies ingest.py, which Python would take for the package of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
DIMENSION = 384
DOCUMENT = 500  # passages a document
TOPIC = 50  # passages a topic
SUBJECTS = 20
WORDS = 85  # a passage of about 120 tokens
WARM_UPS = 10


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--limit", type=int, default=5, help="passages a search returns")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # how the process that searches is started
    arguments = parser.parse_args()
    if arguments.measure:
        _measure(json.loads(arguments.measure.read_text(encoding="utf-8")), arguments.limit)
        return 0

    books = sorted((arguments.data / "textbooks").glob("*.sections.jsonl"))
    sentences, questions = _sentences(books), _questions(books)
    with tempfile.TemporaryDirectory() as home:
        os.environ["MCQA_HOME"] = home
        started = time.perf_counter()
        _build(sentences, arguments.passages)
        seconds = time.perf_counter() - started
        chosen = random.Random(1).choices(questions, k=arguments.queries + WARM_UPS)
        queries = Path(home) / "queries.json"
        queries.write_text(json.dumps({"queries": chosen, "passages": arguments.passages}), encoding="utf-8")
        course = Path(home) / "courses" / "bench"
        size = {name: _size(course.glob(pattern)) for name, pattern in (("SQLite", "index.*"), ("Chroma", "chroma/**/*"))}
        print(f"## Search in {arguments.passages:,} passages\n", flush=True)
        if not books:
            print("Without the textbooks (--data, MCQA_DATA): few different sentences, so that words are less rare.\n")
        print(
            f"Built from {len(sentences):,} sentences in {seconds:.0f} s without embedding "
            f"({arguments.passages / seconds:.0f} passages/s); "
            f"{sum(size.values()):.0f} MiB on disk ({', '.join(f'{name} {mib:.0f}' for name, mib in size.items())}).\n",
            flush=True,
        )
        command = [sys.executable, __file__, "--measure", str(queries), "--limit", str(arguments.limit)]
        return subprocess.run(command, check=False).returncode


def _sentences(books: Sequence[Path]) -> list[str]:
    """Return the distinct sentences of the textbooks and of the sample courses."""
    from ingest.read import ReadOptions, read_document

    texts = [json.loads(line)["text"] for book in books for line in book.read_text(encoding="utf-8").splitlines()]
    for file in sorted((ROOT / "corpus").glob("*/*.pdf")):
        texts += [page.text for page in read_document(file, ReadOptions()).pages]
    found = (sentence.strip() for text in texts for sentence in re.split(r"(?<=[.!?])\s+", text))
    return list(dict.fromkeys(sentence for sentence in found if 5 <= len(sentence.split()) <= WORDS))


def _questions(books: Sequence[Path]) -> list[tuple[str, list[str]]]:
    """Return the sample courses' questions and the textbooks', each with its options."""
    files = [*(ROOT / "corpus").glob("*/questions.jsonl"), *(Path(str(book).replace(".sections", "")) for book in books)]
    lines = (line for file in sorted(files) if file.is_file() for line in file.read_text(encoding="utf-8").splitlines())
    return [(record["question"], record["choices"]) for record in map(json.loads, lines)]


def _build(sentences: Sequence[str], passages: int) -> None:
    """Fill the course "bench" with passages of random sentences and made-up vectors."""
    from ingest.chunk import Piece
    from ingest.home import home
    from ingest.store import Content, Store

    rng = random.Random(0)
    store = Store(home() / "courses" / "bench")
    store.folder.mkdir(parents=True)
    store.create({"folder": ""})
    topics = _topics(passages)
    for first in range(0, passages, DOCUMENT):
        numbers = range(first, min(passages, first + DOCUMENT))
        pieces: list[Piece] = []
        end = 0
        for _ in numbers:
            text = _passage(sentences, rng)
            page = 1 + len(pieces) // 2
            pieces.append(Piece(text=text, start=end, end=end + len(text), page_first=page, page_last=page))
            end += len(text) + 1
        name = f"{first:06}.pdf"
        vectors = _unit(topics[[number // TOPIC for number in numbers]] + _directions(len(numbers), seed=first + 2))
        content = Content(name, "", "indexed", unit="page", pages=len(pieces) // 2, passages=len(pieces))
        ids = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in numbers]
        store.put(content, [name], (), ids, pieces, vectors)
        if sys.stderr.isatty():
            print(f"\r{numbers[-1] + 1}/{passages} passages", end="", file=sys.stderr)


def _passage(sentences: Sequence[str], rng: random.Random) -> str:
    parts: list[str] = []
    words = 0
    while words < WORDS:
        parts.append(rng.choice(sentences))
        words += len(parts[-1].split())
    return " ".join(parts)


def _directions(count: int, seed: int) -> np.ndarray:
    return _unit(np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def _topics(passages: int) -> np.ndarray:
    """Return one direction a topic; those of one subject lie nearer to each other."""
    subjects, own = _directions(SUBJECTS, seed=0), _directions(passages // TOPIC + 1, seed=1)
    return _unit(own + subjects[np.arange(len(own)) % SUBJECTS])


def _size(files: Iterator[Path]) -> float:
    """Return the size of `files` in MiB."""
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


class _Near:
    """An embedder of made-up vectors: near the topic that the text's hash tells. It can embed for real first, for the time."""

    name, max_tokens = "made up", 256

    def __init__(self, topics: np.ndarray, real: Any = None) -> None:
        self._topics, self._real = topics, real

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self._real:
            self._real.encode(texts)
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return np.stack([_unit(self._topics[seed % len(self._topics)] + _directions(1, seed)[0]) for seed in seeds])

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def _measure(given: dict[str, Any], limit: int) -> None:
    """Search the course "bench" and print how long it took."""
    started = time.perf_counter()
    from ingest.course import Course
    from ingest.home import home
    from ingest.search import METHODS, Index
    from ingest.store import Store

    topics = _topics(given["passages"])
    course = Course("bench", embedder=_Near(topics))
    queries = given["queries"]
    imported = time.perf_counter() - started
    first = _timed(lambda: course.search("\n".join((queries[0][0], *queries[0][1])), limit))
    second = _timed(lambda: course.search("\n".join((queries[1][0], *queries[1][1])), limit))
    started = time.perf_counter()
    from ingest.embed import load_embedder

    real = _Near(topics, load_embedder())
    real.encode(["warm"])
    loaded = time.perf_counter() - started
    store = Store(home() / "courses" / "bench")

    def only(method: str, embedder: _Near, question: str, options: list[str]) -> None:
        METHODS[method](Index(store, embedder), "\n".join((question, *options)), limit)

    def whole(embedder: _Near, question: str, options: list[str]) -> None:
        Course("bench", embedder=embedder).search("\n".join((question, *options)), limit)

    def each(embedder: _Near, question: str, options: list[str]) -> None:
        Course("bench", embedder=embedder).search(question, limit, options=options)

    rows: dict[str, Callable[[_Near, str, list[str]], None]] = {
        "dense": lambda *query: only("dense", *query),
        "lexical": lambda *query: only("lexical", *query),
        "hybrid": lambda *query: only("hybrid", *query),
        "Course.search, question and options as one": whole,
        "Course.search, each option too": each,
    }
    print(
        f"The first search took {first:.2f} s in a process that had imported the package in {imported:.2f} s, the second "
        f"{second:.3f} s. Loading the embedder took {loaded:.1f} s.\n"
    )
    print(f"{len(queries) - WARM_UPS} queries, {limit} passages each, milliseconds:\n")
    print("| | p50 | p95 | p50 with embedding | p95 with embedding |\n|---|---|---|---|---|")
    for name, search in rows.items():
        cells = []
        for embedder in (_Near(topics), real):
            if name == "lexical" and embedder is real:
                cells += ["", ""]
                continue
            times = [1000 * _timed(partial(search, embedder, *query)) for query in queries]
            measured = sorted(times[WARM_UPS:])
            cells += [f"{statistics.median(measured):.1f}", f"{measured[int(0.95 * len(measured))]:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
