"""How often the place that holds an answer is among the first passages, and how well relevance tells a course's questions.

    python benchmarks/retrieval.py                       pages, on the sample courses
    python benchmarks/retrieval.py --textbooks           sections, on four textbooks in one course
    python benchmarks/retrieval.py --textbooks --relevance   fits and judges the relevance of a passage

--passage-tokens and --overlap-tokens choose the passages' size, --method and --query the ways of searching (default: all), and
--home a folder that keeps the indexes for the next run. Textbooks are read from --data or $MCQA_DATA (default: ../shared/data).

Prints Markdown. Recall comes with its 95 % interval. Every question is searched for in one course that holds all the books; a
hit is a passage of the right book under the right chapter and section.

Relevance: each question is searched for in its own book and, apart from that, in all the others, which do not hold it (though
books on neighboring subjects may say something about it). The coefficients of ingest.search.relevance are those of a logistic
regression on the first hits, half of them related; each book is judged by coefficients fitted on the others.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Beside this script lies ingest.py, which Python would take for the package of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

if TYPE_CHECKING:
    from assistant.mcq import MCQ
    from assistant.retrieval import Place
    from ingest.chunk import SplitSettings
    from ingest.course import Course

    Questions = list[tuple[MCQ, Place]]

ROOT = Path(__file__).resolve().parent.parent
METHODS = ["hybrid", "dense", "euclidean", "lexical"]
QUERIES = ["options", "question", "each"]
QUERY_NAMES = {"options": "question and options", "question": "question", "each": "and each option"}


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--textbooks", action="store_true", help="four textbooks in one course, by section")
    parser.add_argument("--relevance", action="store_true", help="with --textbooks: relevance instead of recall")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--passage-tokens", type=int, default=120)
    parser.add_argument("--overlap-tokens", type=int, default=24)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--query", nargs="+", choices=QUERIES, default=QUERIES)
    parser.add_argument("--home", type=Path, help="a folder that keeps the indexes; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.relevance and not arguments.textbooks:
        parser.error("--relevance needs --textbooks")
    books = sorted((arguments.data / "textbooks").glob("*.pdf"))
    if arguments.textbooks and not books:
        print(f"skipped: no PDF in {arguments.data / 'textbooks'}; name its folder with --data or MCQA_DATA")
        return 0

    from ingest.chunk import SplitSettings

    with _home(arguments.home):
        settings = SplitSettings(passage_tokens=arguments.passage_tokens, overlap_tokens=arguments.overlap_tokens)
        parts = [_textbooks(books, settings)] if arguments.textbooks else _sample_courses(settings)
        if arguments.relevance:
            _relevance(*parts[0])
        else:
            _recall(parts, arguments.method, arguments.query)
    return 0


@contextmanager
def _home(kept: Path | None) -> Iterator[None]:
    """Have the indexes in a folder of their own, whatever the user has."""
    if kept:
        os.environ["MCQA_HOME"] = str(kept.resolve())
        yield
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["MCQA_HOME"] = home
        yield


def _sample_courses(settings: "SplitSettings") -> "list[tuple[Course, Questions]]":
    from assistant.retrieval import read_places
    from ingest.course import Course

    parts = []
    for file in sorted((ROOT / "corpus").glob("*/questions.jsonl")):
        course = Course(f"{file.parent.name} {settings.passage_tokens}-{settings.overlap_tokens}", settings=settings)
        course.sync(file.parent)
        parts.append((course, read_places(file)))
    return parts


def _textbooks(books: Sequence[Path], settings: "SplitSettings") -> "tuple[Course, Questions]":
    from assistant.retrieval import Place, read_places
    from ingest.course import Course
    from ingest.home import home

    course = Course(f"textbooks {settings.passage_tokens}-{settings.overlap_tokens}", settings=settings)
    folder = home() / "textbooks"
    folder.mkdir(parents=True, exist_ok=True)
    questions = []
    for book in books:
        shutil.copyfile(book, folder / book.name)
        found = read_places(book.with_suffix(".jsonl"))
        questions += [(mcq, Place(book.name, None, place.chapter, place.section)) for mcq, place in found]
    report = course.sync(folder)
    print(f"{report.counts}; {report.pages} pages, {report.passages} passages in {report.seconds:.0f} s", file=sys.stderr)
    return course, questions


def _recall(parts: "list[tuple[Course, Questions]]", methods: Sequence[str], queries: Sequence[Any]) -> None:
    from assistant.retrieval import DEPTHS, evaluate_retrieval
    from assistant.stats import wilson

    n = sum(len(questions) for _, questions in parts)
    print(f"| method | query | {' | '.join(f'recall@{depth}' for depth in DEPTHS)} | MRR |\n|{'---|' * (len(DEPTHS) + 3)}")
    for method in methods:
        for query in queries:
            scores = [evaluate_retrieval(course, questions, method=method, query=query) for course, questions in parts]
            cells = []
            for depth in DEPTHS:
                found = sum(score.found[depth] for score in scores)
                low, high = wilson(found, n)
                cells.append(f"{100 * found / n:.1f} ({100 * low:.1f}-{100 * high:.1f})")
            mrr = sum(score.mrr * score.n for score in scores) / n
            print(f"| {method} | {QUERY_NAMES[query]} | {' | '.join(cells)} | {mrr:.3f} |", flush=True)
    print(f"\nIn %, with 95 % intervals, n = {n}.")


def _relevance(course: "Course", questions: "Questions") -> None:
    from assistant.stats import percent_with_interval
    from ingest.search import RELEVANT, Index, relevance, signals

    books = [record.path for record in course.documents()]
    rows = []
    for mcq, place in questions:
        query = "\n".join((mcq.question, *mcq.options))
        for related in (True, False):
            held = [book for book in books if (book == place.document) == related]
            passages = [hit.passage for hit in course.search(query, 3, documents=held)]
            found = signals(Index(course._store, course._embedder()), query, passages)
            rows.append((place.document, related, found))
    labels = np.array([related for _, related, _ in rows])
    owners = np.array([book for book, _, _ in rows])
    first = np.array([found[0] for _, _, found in rows])
    whole = _fitted(first, labels)
    print(f"Intercept {whole[0]:.2f}, cosine {whole[1]:.2f}, words {whole[2]:.2f}; {len(questions)} questions.\n")
    print(
        "| left out | n | area under the ROC curve | own: relevant | others: not relevant | both |\n|---|---|---|---|---|---|"
    )
    right = []
    for book in books:
        here = np.flatnonzero(owners == book)
        others = owners != book
        weights = _fitted(first[others], labels[others])
        best = np.array([max(weights[0] + weights[1:] @ np.array(signal) for signal in rows[i][2]) for i in here])
        judged = (best >= 0) == labels[here]
        right.append(judged)
        own = labels[here]
        cells = [percent_with_interval(int(part.sum()), len(part)) for part in (judged[own], judged[~own], judged)]
        print(f"| {book} | {int(own.sum())} | {_area(best[own], best[~own]):.3f} | {' | '.join(cells)} |")
    every = np.concatenate(right)
    print(f"\nAll books, each left out in turn: {percent_with_interval(int(every.sum()), len(every))}.")
    shipped = [max(relevance(*signal) for signal in found) >= RELEVANT for _, _, found in rows]
    print(f"The coefficients in use: {percent_with_interval(int((np.array(shipped) == labels).sum()), len(labels))}.")


def _fitted(signals: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return intercept and weights of a logistic regression, shape (3,), by Newton's method with a trace of ridge."""
    inputs = np.column_stack([np.ones(len(signals)), signals])
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        expected = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (labels - expected) - 1e-3 * weights
        curvature = (inputs * (expected * (1 - expected))[:, None]).T @ inputs + 1e-3 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return how often a positive stands above a negative, ties counting half."""
    difference = positive[:, None] - negative[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


if __name__ == "__main__":
    sys.exit(main())
