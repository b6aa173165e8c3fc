"""How well a course's search finds the place that answers a question: recall and reciprocal rank by page or section."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.stats import wilson
from ingest.course import Course
from ingest.errors import UserError
from ingest.store import Passage

DEPTHS = (1, 3, 5, 10)
_SHINGLE = 6  # words; long enough that a textbook rarely repeats one by chance

Query: TypeAlias = Literal["question", "options", "each"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question's answer stands: a page of a document, or a section, with its chapter and document where known."""

    document: str | None
    page: int | None
    chapter: str | None
    section: str | None


@dataclass(frozen=True, slots=True)
class RetrievalScore:
    """How often one way of searching found the place among the first hits, out of `n` questions.

    `found` counts by depth; `mrr` is the mean over all questions of 1 / rank of the first right hit (0 beyond the last depth).
    """

    method: str
    query: Query
    by: str
    n: int
    found: Mapping[int, int]
    mrr: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures with their 95 % intervals, in types that JSON knows."""
        recall = {f"recall@{depth}": count / self.n for depth, count in self.found.items()}
        intervals = {f"recall@{depth}_interval": list(wilson(count, self.n)) for depth, count in self.found.items()}
        return {"method": self.method, "query": self.query, "by": self.by, "n": self.n, **recall, **intervals, "mrr": self.mrr}


def read_places(file: Path) -> list[tuple[MCQ, Place]]:
    """Return the questions of `file` that name a page or a section; raises UserError where none does.

    A page is named by `document` and `page`, a section by `section`, with `chapter` and `document` where they are given.
    """
    found = []
    for row in read_mcqs(file):
        place = Place(*(row.fields.get(key) for key in ("document", "page", "chapter", "section")))
        if row.mcq is not None and ((place.document and isinstance(place.page, int)) or isinstance(place.section, str)):
            found.append((row.mcq, place))
    if not found:
        raise UserError(f"{file}: no question names where its answer stands; add 'document' and 'page', or 'section'")
    return found


def evaluate_retrieval(
    course: Course,
    questions: Sequence[tuple[MCQ, Place]],
    *,
    method: str = "hybrid",
    query: Query = "options",
    sections: "SectionTexts | None" = None,
    reranker: str | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> RetrievalScore:
    """Search for every question and count where the first hit on its place stands.

    `query` is what is searched for: the question alone, the question with its options, or these and each single option,
    fused. A section is recognized by the headings of a passage, or by the section's own text where `sections` holds it.
    """
    ranks = []
    for done, (mcq, place) in enumerate(questions, start=1):
        text = "\n".join((mcq.question, *mcq.options)) if query == "options" else mcq.question
        options = mcq.options if query == "each" else ()
        hits = course.search(text, DEPTHS[-1], method=method, options=options, reranker=reranker)
        right = (rank for rank, hit in enumerate(hits, start=1) if _is_there(hit.passage, place, sections))
        ranks.append(next(right, 0))
        on_progress(done, len(questions))
    by = "page" if all(place.page for _, place in questions) else "section"
    found = {depth: sum(0 < rank <= depth for rank in ranks) for depth in DEPTHS}
    return RetrievalScore(method, query, by, len(ranks), found, sum(1 / rank for rank in ranks if rank) / len(ranks))


class SectionTexts:
    """The texts of a book's sections, to tell which section a passage comes from, whatever its headings say."""

    def __init__(self, sections: Iterable[tuple[str, str, str]]) -> None:
        """`sections` are (chapter, title, text)."""
        self._owners: dict[tuple[str, ...], set[tuple[str, str]]] = {}
        for chapter, title, text in sections:
            for shingle in _shingles(text):
                self._owners.setdefault(shingle, set()).add((_plain(chapter), _plain(title)))

    @classmethod
    def read(cls, files: Sequence[Path]) -> "SectionTexts":
        """Read JSONL files of {"chapter", "title", "text"}; raises UserError on a file that is none."""
        sections = []
        for file in files:
            try:
                for line in file.read_text(encoding="utf-8").splitlines():
                    record = json.loads(line)
                    sections.append((str(record["chapter"]), str(record["title"]), str(record["text"])))
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror})") from error
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}: expected one object a line with 'chapter', 'title' and 'text'") from error
        return cls(sections)

    def of(self, passage: Passage) -> set[tuple[str, str]]:
        """Return (chapter, title) of the section with which the passage shares most words in a row; ties give several."""
        votes = Counter(owner for shingle in _shingles(passage.text) for owner in self._owners.get(shingle, ()))
        most = max(votes.values(), default=0)
        return {owner for owner, count in votes.items() if count == most}


def _is_there(passage: Passage, place: Place, sections: SectionTexts | None) -> bool:
    if place.document and place.document not in (passage.document, *passage.copies):
        return False
    if place.page is not None:
        return passage.page_first <= place.page <= passage.page_last
    title, chapter = _plain(place.section or ""), _plain(place.chapter or "")
    if sections is not None:
        return any(title == other and chapter in ("", owner) for owner, other in sections.of(passage))
    path = [_plain(part) for part in passage.heading.split(" › ")]
    return title in path and (not chapter or chapter in path or len(path) == 1)


def _plain(title: str) -> str:
    """Return a title's words in lower case without its number, so that "3.2 Page Tables" and "Page tables" are one."""
    words = re.findall(r"\w+", title.lower())
    numbered = re.match(r"\s*(?:chapter\s+)?[\dIVXivx]+(?:\.\d+)*[.:]?\s+\S", title)
    skipped = len(re.findall(r"\w+", title[: numbered.end() - 1])) if numbered else 0
    return " ".join(words[skipped:])


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1)}
