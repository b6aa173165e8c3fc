"""Pages → passages: pieces that the embedder reads whole, each with its place in the document."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingest.pdf import Page

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
    """A passage of a document: characters `start` to `end` of its text, from page `page_first` to `page_last`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    start: int
    end: int
    page_first: int
    page_last: int


def document_text(pages: Sequence[Page]) -> str:
    """Return the text that character spans count in: the pages' texts, with one character between two pages.

    That character is a space where a sentence runs on over the page's end, else a newline.
    """
    parts: list[str] = []
    for previous, page in zip([None, *pages], pages, strict=False):
        if previous is not None:
            runs_on = previous.text[-1:].isalnum() and page.text[:1].islower()
            parts.append(" " if runs_on else "\n")
        parts.append(page.text)
    return "".join(parts)


def split(pages: Sequence[Page], settings: SplitSettings, count_tokens: Callable[[str], int]) -> list[Piece]:
    """Split a document into pieces of at most `settings.passage_tokens` tokens, cut at paragraphs and sentences first.

    Every piece is `document_text(pages)[start:end]`; together they hold every character that is not white space.
    `count_tokens` tells the length of a text as the embedder counts it, its own marks aside.
    """
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        separators=_SEPARATORS,
        is_separator_regex=True,
        keep_separator="end",
        chunk_size=settings.passage_tokens,
        chunk_overlap=settings.overlap_tokens,
        length_function=count_tokens,
    )
    text = document_text(pages)
    offsets = [0, *accumulate(len(page.text) + 1 for page in pages)][:-1]

    def page_of(character: int) -> int:
        return pages[bisect_right(offsets, character) - 1].number

    pieces = []
    search_from = 0
    for chunk in splitter.split_text(text):
        # The splitter's own start index assumes an overlap in characters; ours is in tokens.
        start = text.index(chunk, search_from)
        search_from = start + 1
        end = start + len(chunk)
        pieces.append(
            Piece(text=chunk, start=start, end=end, page_first=page_of(start), page_last=page_of(max(start, end - 1)))
        )
    return pieces
