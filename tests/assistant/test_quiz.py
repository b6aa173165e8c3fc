"""Questions made from pages: what is asked, and that the page answers it."""

from pathlib import Path

import pytest

from assistant.quiz import QuizItem, make_quiz
from ingest.document import Page
from ingest.read import ReadOptions, read_document

CORPUS = Path(__file__).resolve().parents[2] / "corpus"

# As a textbook's glossary comes out of a PDF: its lines joined.
GLOSSARY = Page(
    7,
    "Summary\nBusy waiting may cause starvation. Deadlock and livelock are worse, and so are race conditions.\n"
    "busy waiting: looping until a condition holds deadlock: a state in which each process waits for another livelock: a state "
    "in which processes act without progress race condition: a fault that depends on the order of events starvation: waiting "
    "without end while others are served",
)
STORY = [
    Page(
        number,
        f"In {year} the court of {name} sat again. It was {year}. The treaty of {name} ended a long war in {year} between two "
        f"kings. After the war, the people of {name} built a market near the river, and for years {name} was rich.",
    )
    for number, (year, name) in enumerate(
        [(1648, "Oldport"), (1713, "Lowgate"), (1763, "Hightown"), (1783, "Westford"), (1815, "Newbridge")], start=1
    )
]


@pytest.fixture(scope="module")
def course() -> dict[str, tuple[Page, ...]]:
    folder = CORPUS / "operating-systems"
    return {path.name: read_document(path, ReadOptions()).pages for path in sorted(folder.glob("*.pdf"))}


def asked(items: list[QuizItem], kind: str) -> dict[str, str]:
    """Return the right option by what is asked."""
    return {
        item.mcq.question: item.mcq.options["ABCDEFGHIJ".index(item.mcq.answer or "")] for item in items if item.kind == kind
    }


def test_a_glossary_whose_lines_were_joined_is_taken_apart_at_its_terms() -> None:
    items = make_quiz({"a.pdf": [Page(1, "Nothing here."), GLOSSARY]}, kinds=["definition"])
    assert asked(items, "definition") == {
        "What is meant by “busy waiting”?": "looping until a condition holds",
        "What is meant by “deadlock”?": "a state in which each process waits for another",
        "What is meant by “livelock”?": "a state in which processes act without progress",
        "What is meant by “race condition”?": "a fault that depends on the order of events",
        "What is meant by “starvation”?": "waiting without end while others are served",
    }
    assert {item.page for item in items} == {7}


def test_a_term_is_asked_for_by_what_it_means() -> None:
    items = make_quiz({"a.pdf": [GLOSSARY]}, kinds=["term"])
    assert asked(items, "term")["Which term is defined here: a fault that depends on the order of events?"] == "race condition"
    assert all(len(set(item.mcq.options)) == 4 for item in items)


def test_a_sentence_loses_a_name_or_its_year_and_wrong_options_are_of_the_same_form() -> None:
    items = make_quiz({"story.txt": STORY}, kinds=["gap"])
    assert items
    years = [item for item in items if item.mcq.question.startswith("Which year")]
    names = [item for item in items if item not in years]
    assert all(option.isdigit() for item in years for option in item.mcq.options)
    assert all(option[0].isupper() for item in names for option in item.mcq.options)


def test_the_page_holds_the_evidence_and_no_wrong_option_stands_in_it(course: dict[str, tuple[Page, ...]]) -> None:
    items = make_quiz(course)
    assert len(items) > 40
    for item in items:
        page = next(page for page in course[item.document] if page.number == item.page)
        right = item.mcq.options["ABCD".index(item.mcq.answer or "")]
        if item.kind == "gap":
            assert item.evidence in page.text
            assert item.mcq.question.split("? ", 1)[1].replace("_____", right) == item.evidence
            assert not any(option in item.evidence.replace(right, "") for option in item.mcq.options)
        assert len(set(item.mcq.options)) == len(item.mcq.options) == 4


def test_right_options_stand_at_every_letter_and_the_seed_decides(course: dict[str, tuple[Page, ...]]) -> None:
    items = make_quiz(course)
    assert {item.mcq.answer for item in items} == set("ABCD")
    assert items == make_quiz(course)
    assert [item.mcq.options for item in items] != [item.mcq.options for item in make_quiz(course, seed=1)]


def test_a_few_questions_come_from_as_many_pages(course: dict[str, tuple[Page, ...]]) -> None:
    pages = {(item.document, item.page) for item in make_quiz(course)}
    few = make_quiz(course, limit=len(pages))
    assert {(item.document, item.page) for item in few} == pages
    assert len(few) == len(pages)


def test_bibliographies_are_not_asked_about() -> None:
    entry = Page(6, "Newbridge: Lowgate University Press, A. Hightown and Clive S. Westford. 1994. Oldport Review 89 (3): 543.")
    items = make_quiz({"a.pdf": [*STORY, entry]})
    assert items
    assert 6 not in {item.page for item in items}


def test_pages_that_say_nothing_give_no_question() -> None:
    assert make_quiz({"a.txt": [Page(1, ""), Page(2, "1 2 3\n\n" + "lorem " * 500)]}) == []
