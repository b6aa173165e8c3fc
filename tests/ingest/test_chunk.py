import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.chunk import SplitSettings, document_text, split
from ingest.document import Page
from ingest.embed import load_embedder

WORDS = st.text("abcdefghij 。.!,\n", max_size=400)


def words(text: str) -> int:
    return len(text.split())


@settings(max_examples=200)
@example(["a a 。a", "a a 。a", "a a 。a", "a 。a 。a"], 16, 0)  # the last passage's words stand in the one before, too
@example(["a a a a. " * 40], 16, 8)
@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(16, 40), st.integers(0, 8))
def test_pieces_are_slices_that_cover_the_document_within_the_budget(texts: list[str], size: int, overlap: int) -> None:
    pages = [Page(number, text) for number, text in enumerate(texts, start=1)]
    document = document_text(pages)
    pieces = split(pages, SplitSettings(passage_tokens=size, overlap_tokens=overlap), words)
    covered = set()
    for piece in pieces:
        assert piece.text == document[piece.start : piece.end]
        assert words(piece.text) <= size
        assert 1 <= piece.page_first <= piece.page_last <= len(pages)
        covered.update(range(piece.start, piece.end))
    assert {i for i, character in enumerate(document) if not character.isspace()} <= covered
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


def test_a_passage_knows_the_pages_it_stands_on() -> None:
    pages = [Page(1, "One two three."), Page(2, ""), Page(3, "Four five six. " * 20)]
    pieces = split(pages, SplitSettings(passage_tokens=16, overlap_tokens=0), words)
    assert (pieces[0].page_first, pieces[0].page_last) == (1, 3)
    assert all(piece.page_first == piece.page_last == 3 for piece in pieces[1:])


def test_a_sentence_that_runs_over_a_page_end_is_joined_by_a_space() -> None:
    assert (
        document_text([Page(1, "the transition from"), Page(2, "running to ready.")]) == "the transition from running to ready."
    )
    assert document_text([Page(1, "The end."), Page(2, "A start.")]) == "The end.\nA start."
    entries = [Page(1, "fork: makes a process"), Page(2, "kernel: what runs them"), Page(3, "and the machine")]
    assert document_text(entries) == "fork: makes a process\nkernel: what runs them and the machine"


def test_passages_fit_the_embedder_whole() -> None:
    embedder = load_embedder()
    text = "Paging divides memory into frames; supercalifragilistic words need many tokens. " * 100 + "x" * 3000
    pieces = split([Page(1, text)], SplitSettings(), embedder.count_tokens)
    assert all(embedder.count_tokens(piece.text) + 2 <= embedder.max_tokens for piece in pieces)
    lengths = [embedder.count_tokens(piece.text) for piece in pieces]
    assert max(lengths) > 90  # and are not splinters


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"passage_tokens": 300}, {"passage_tokens": 40, "overlap_tokens": 30}, {"size": 3}):
        with pytest.raises(ValidationError):
            SplitSettings(**wrong)
