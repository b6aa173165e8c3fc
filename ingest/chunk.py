"""Pages → passages: pieces that the embedder reads whole, each with its place in the document."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingest.clean import defined_term
from ingest.document import Heading, Page

# Paragraphs and sentences are one level: the splitter never merges across its levels, so that paragraphs as a level of
# their own would leave each heading before a long paragraph as a passage by itself.
_SEPARATORS = [r"\n|(?<=[.!?…])\s+|(?<=[。！？])", r"(?<=[;:,])\s+", r"\s+", ""]


class SplitSettings(BaseModel):
    """How long passages are, in tokens of the embedder, and how many of them two neighbours may share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # all-MiniLM-L6-v2 reads 256 tokens, two of which are its own marks.
    passage_tokens: int = Field(default=120, ge=16, le=254)
    overlap_tokens: int = Field(default=24, ge=0)

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> "SplitSettings":
        if self.overlap_tokens * 2 > self.passage_tokens:
            raise ValueError("overlap_tokens must be at most half of passage_tokens")
        return self


class Piece(BaseModel):
    """A passage of a document: characters `start` to `end` of its text, from page `page_first` to `page_last`.

    `heading` is the path of headings it stands under, from the highest, as in "Memory › Page tables".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    heading: str = ""
    start: int
    end: int
    page_first: int
    page_last: int


def document_text(pages: Sequence[Page]) -> str:
    """Return the text that character spans count in: the pages' texts, with one character between two pages.

    That character is a space where a sentence runs on over the page's end, else a newline: also where a glossary's next entry
    begins.
    """
    parts: list[str] = []
    for previous, page in zip([None, *pages], pages, strict=False):
        if previous is not None:
            runs_on = (
                previous.text[-1:].isalnum()
                and page.text[:1].islower()
                and not (defined_term(previous.text.rpartition("\n")[2]) and defined_term(page.text.partition("\n")[0]))
            )
            parts.append(" " if runs_on else "\n")
        parts.append(page.text)
    return "".join(parts)


def split(pages: Sequence[Page], settings: SplitSettings, count_tokens: Callable[[str], int]) -> list[Piece]:
    """Split a document into pieces of at most `settings.passage_tokens` tokens, cut at paragraphs and sentences first.

    Every piece is `document_text(pages)[start:end]`; together they hold every character that is not white space.
    `count_tokens` tells the length of a text as the embedder counts it, its own marks aside.
    """
    counted = lru_cache(4096)(count_tokens)  # the splitter asks several times for the length of each sentence
    splitter = _placing_splitter()(
        separators=_SEPARATORS,
        is_separator_regex=True,
        keep_separator="end",
        chunk_size=settings.passage_tokens,
        chunk_overlap=settings.overlap_tokens,
        length_function=lambda part: counted(str(part)),
    )
    text = document_text(pages)
    offsets = [0, *accumulate(len(page.text) + 1 for page in pages)][:-1]

    def page_of(character: int) -> int:
        return pages[bisect_right(offsets, character) - 1].number

    places, paths = _heading_paths(pages, offsets)
    pieces = []
    for chunk in splitter.split_text(text):
        end = chunk.start + len(chunk)
        pieces.append(
            Piece(
                text=str(chunk),
                # Where a heading stands inside a passage, what holds the greater part of the passage counts.
                heading=paths[bisect_right(places, (chunk.start + end) // 2)],
                start=chunk.start,
                end=end,
                page_first=page_of(chunk.start),
                page_last=page_of(max(chunk.start, end - 1)),
            )
        )
    return pieces


def _heading_paths(pages: Sequence[Page], offsets: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the places of all headings in the document's text, and the path in force before, and after, each of them."""
    places: list[int] = []
    paths = [""]
    above: list[Heading] = []
    for page, offset in zip(pages, offsets, strict=True):
        for heading in page.headings:
            above = [*(other for other in above if other.level < heading.level), heading]
            places.append(offset + heading.start)
            paths.append(" › ".join(other.title for other in above))
    return places, paths


class _Placed(str):
    """A part of a text that knows where in it it starts."""

    __slots__ = ("start",)
    start: int

    @classmethod
    def at(cls, start: int, text: str) -> "_Placed":
        part = cls(text)
        part.start = start
        return part


@cache
def _placing_splitter() -> Any:
    """Return RecursiveCharacterTextSplitter made to return _Placed passages, for one `split_text` an instance.

    The splitter's own start index searches for each passage's text from a position counted in characters, while our
    overlap is in tokens; and any search can find an earlier place with the same words, and so the wrong page. The
    splitter merges small parts, which reach it in the order of the text and without gaps: so their places are known.
    """
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    class PlacingSplitter(RecursiveCharacterTextSplitter):
        _at = 0

        def _merge_splits(self, splits: Iterable[str], separator: str) -> list[str]:
            placed = []
            for part in splits:
                placed.append(_Placed.at(self._at, part))
                self._at += len(part)
            return super()._merge_splits(placed, separator)

        def _join_docs(self, docs: list[str], separator: str) -> str | None:
            joined = separator.join(docs)
            start = docs[0].start if docs else 0  # type: ignore[attr-defined]  # _merge_splits placed them
            stripped = joined.strip()
            return _Placed.at(start + len(joined) - len(joined.lstrip()), stripped) if stripped else None

    return PlacingSplitter
