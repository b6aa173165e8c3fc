"""The tab Ask, its callbacks without a browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.answer import Influence
from assistant.feedback import feedback_file
from assistant.mcq import MCQ, QuestionError
from assistant.model import LanguageModel
from assistant.web_ask import (
    Asked,
    Asking,
    answer_html,
    from_fields,
    question,
    record_correction,
    shown_page,
    sources_html,
    to_fields,
    understand,
)
from assistant.web_pages import View, page_html
from assistant.web_service import Service
from ingest.course import Course
from ingest.errors import UserError

MakePdf = Callable[[Path, str], Path]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3))"


@pytest.fixture
def asked(lm: LanguageModel, home: Path, tmp_path: Path, make_pdf: MakePdf) -> Asked:
    """An answer from a course whose document means harm."""
    make_pdf(tmp_path / "c" / "a<b>.pdf", f"#raw({HOSTILE!r}) Herons wait in shallow water.".replace("'", '"'))
    Course("birds").sync(tmp_path / "c")
    service = Service(lambda _: lm)
    return Asked(service.answer(MCQ(f"What waits? {HOSTILE}", (HOSTILE, "a heron")), "birds"), "birds")


def test_texts_from_files_and_users_are_shown_as_text(asked: Asked) -> None:
    asking = Asking()
    asking.add(asked)
    asked.influences = [Influence(hit, 0.2, hit.passage.text[:40], 0.1) for hit in asked.answer.sources]
    for made in (answer_html(asked), sources_html(asking)):
        assert "<script" not in made
        assert "<img" not in made
    assert "a&lt;b&gt;.pdf, p. 1" in sources_html(asking)
    assert "<mark>&lt;script&gt;" in sources_html(asking)
    assert "<script>" in asked.answer.sources[0].passage.text


def test_the_page_behind_a_source_is_shown_with_the_passage_marked(asked: Asked) -> None:
    asking = Asking()
    assert sources_html(asking) == ""
    asking.add(asked)
    view = shown_page(asking)
    assert (view.course, view.document, view.page) == ("birds", "a<b>.pdf", 1)
    body, pages = page_html(view)
    assert pages == 1
    assert 'alt="a&lt;b&gt;.pdf, page 1 of 1 with the passage highlighted"' in body


def test_a_page_that_cannot_be_drawn_is_shown_as_text(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "c" / "a<b>.pdf").unlink()
    body, pages = page_html(View("birds", "a<b>.pdf", 1, "Herons wait in shallow water."))
    assert pages == 1
    assert "cannot be shown as a picture" in body
    assert "<mark>Herons wait in shallow water.</mark>" in body
    assert "<script" not in body
    assert "no course" in page_html(View("gone", "a.pdf"))[0]


def test_both_letters_are_shown_only_where_they_differ(asked: Asked) -> None:
    asked.alone = asked.answer
    assert "Without" not in answer_html(asked)
    other = "B" if asked.answer.letter == "A" else "A"
    asked.alone = type(asked.answer)(*(getattr(asked.answer, name) for name in asked.answer.__slots__))
    object.__setattr__(asked.alone, "letter", other)
    shown = answer_html(asked)
    assert "With course material" in shown
    assert shown.count("bar without") == 2


def test_fields_and_pasted_text_mean_the_same() -> None:
    assert to_fields("Is it?\nA. yes\nB. no") == ("Is it?", "A. yes\nB. no")
    for options in ("yes\nno", "A. yes\nB. no", "(a) yes\n\n(b) no", "1) yes\n2) no"):
        assert from_fields("Is it?", options) == MCQ("Is it?", ("yes", "no"))
    with pytest.raises(QuestionError, match="only one option"):
        from_fields("Is it?", "yes")


def test_a_question_is_understood_as_it_is_typed() -> None:
    stem, options, said, parsed = understand("Is it?\nA. yes\nB. no", "", "")
    assert (stem, options, parsed) == ("Is it?", "A. yes\nB. no", "Is it?\nA. yes\nB. no")
    assert "2 options" in said
    stem, options, said, parsed = understand("Is it", "before", "a\nb")
    assert (stem, options, parsed) == ("before", "a\nb", "")
    assert "no options found" in said


def test_what_was_edited_counts_unless_something_new_was_pasted() -> None:
    pasted = "Is it?\nA. yes\nB. no"
    assert question(pasted, "Was it?", "A. yes\nB. no", pasted).question == "Was it?"
    assert question("New?\nA. x\nB. y", "Was it?", "A. yes\nB. no", pasted).question == "New?"
    assert question("", "Was it?", "yes\nno", "").options == ("yes", "no")


def test_the_arrows_move_between_questions_and_the_oldest_are_forgotten(asked: Asked) -> None:
    asking = Asking()
    for number in range(60):
        asking.add(Asked(asked.answer, None, id=str(number)))
    assert len(asking.history) == 50
    asking.step(-1)
    assert asking.current is not None
    assert asking.current.id == "58"
    asking.step(5)
    assert asking.current.id == "59"


def test_a_correction_is_kept_with_all_that_training_needs(asked: Asked) -> None:
    asking = Asking()
    with pytest.raises(UserError, match="ask a question first"):
        record_correction(asking, "A")
    asking.add(asked)
    with pytest.raises(UserError, match="choose a letter"):
        record_correction(asking, "C")
    assert not feedback_file().exists()
    assert "B is noted" in record_correction(asking, "B")
    assert '"letter": "B"' in feedback_file().read_text(encoding="utf-8")
    assert "option right" in answer_html(asked) or asked.correction == "B"
