from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.mcq import LETTERS, MCQ, QuestionError, letter_of_label, parse_question

STEM = "Which gas do plants take in?"
OPTIONS = ("Oxygen", "Carbon dioxide", "Nitrogen gas, N2")


def lines(label: str) -> str:
    """The options one to a line, labeled like `label` with "x" for the letter and "1" for the number."""
    labeled = [
        label.replace("X", LETTERS[i]).replace("x", LETTERS[i].lower()).replace("1", str(i + 1)) + f" {option}"
        for i, option in enumerate(OPTIONS)
    ]
    return "\n".join([STEM, *labeled])


@pytest.mark.parametrize("label", ["X.", "X)", "(X)", "x.", "x)", "(x)", "1.", "1)", "(1)", "X:", "[X]", "- X.", "  X. "])
def test_every_way_to_label_options_is_understood(label: str) -> None:
    assert parse_question(lines(label)) == MCQ(STEM, OPTIONS)


@pytest.mark.parametrize("label", ["X.", "X)", "(x)", "1."])
def test_options_may_run_on_in_one_line(label: str) -> None:
    assert parse_question(lines(label).replace("\n", " ")) == MCQ(STEM, OPTIONS)


@pytest.mark.parametrize(
    "text",
    [
        "Question: {stem}\n\nOptions:\nA. {0}\nB. {1}\nC. {2}\n\nAnswer:",
        "Question: {stem} Options: A. {0} B. {1} C. {2} Answer:",
        "Q7. {stem}\nChoices:\nA) {0}\nB) {1}\nC) {2}",
        "12. {stem}\nA. {0}\nB. {1}\nC. {2}",
        "1. {stem}\n1. {0}\n2. {1}\n3. {2}",
        "{stem}\r\nA. {0}\r\nB. {1}\r\nC. {2}\r\n",
    ],
)
def test_what_stands_around_a_question_is_taken_off(text: str) -> None:
    assert parse_question(text.format(*OPTIONS, stem=STEM)) == MCQ(STEM, OPTIONS)


@pytest.mark.parametrize("tail", ["Answer: B", "Answer: (b)", "Correct answer: B.", "The answer is B"])
def test_a_key_after_the_options_is_kept(tail: str) -> None:
    assert parse_question(f"{lines('X.')}\n{tail}").answer == "B"


def test_numbered_statements_stay_in_the_stem() -> None:
    mcq = parse_question(
        "Consider:\n1. All cats purr.\n2. Some dogs bark.\nWhich hold?\nA. 1 only\nB. 1. and 2. both\nC. neither"
    )
    assert mcq.question == "Consider:\n1. All cats purr.\n2. Some dogs bark.\nWhich hold?"
    assert mcq.options == ("1 only", "1. and 2. both", "neither")


def test_an_option_may_run_over_lines_and_code_in_the_stem_keeps_its_lines() -> None:
    mcq = parse_question("What does it print?\nfor i in x:\n    print(i)\nA. one\n   two\nB. three")
    assert mcq.question == "What does it print?\nfor i in x:\n    print(i)"
    assert mcq.options == ("one two", "three")


def test_ten_options_are_the_most() -> None:
    text = "Pick one:\n" + "\n".join(f"{letter}. option {letter}" for letter in LETTERS)
    assert len(parse_question(text).options) == 10
    with pytest.raises(QuestionError, match="2 to 10 options"):
        parse_question(text + "\nK. one too many")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the question is empty"),
        ("What is this?", "no options found"),
        ("What is this?\nA. lonely", "only one option"),
        ("A. x\nB. y", "the question is empty"),
        ("What?\nA. x\nB.\nC. z", "option B is empty"),
        ("What?\nA. x\nB. y\nD. z", "option D follows B; option C is missing"),
        ("What?\nA. x\nB. y\nAnswer: D", "the key is 'D'"),
    ],
)
def test_what_is_missing_is_said(text: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        parse_question(text)


@pytest.mark.parametrize(
    "labels",
    [
        ["Ａ．", "Ｂ．", "Ｃ．"],
        ["（Ａ）", "（Ｂ）", "（Ｃ）"],
        ["A、", "B、", "C、"],
        ["①", "②", "③"],
        ["Ⓐ ", "Ⓑ ", "Ⓒ "],
        ["⒜ ", "⒝ ", "⒞ "],
        ["⒈", "⒉", "⒊"],
        ["【A】", "【B】", "【C】"],
        ["А. ", "Б. ", "В. "],  # the first letters of the Cyrillic alphabet
        ["а) ", "б) ", "в) "],
        ["\N{CYRILLIC CAPITAL LETTER A}. ", "\N{CYRILLIC CAPITAL LETTER VE}. ", "\N{CYRILLIC CAPITAL LETTER ES}. "],
        ["A. ", "B. ", "\N{CYRILLIC CAPITAL LETTER ES}. "],
        ["Α. ", "Β. ", "Γ. "],
        ["α) ", "β) ", "γ) "],
    ],
)
def test_labels_in_other_forms_and_alphabets_are_understood(labels: list[str]) -> None:
    for between in ("\n", " "):
        text = between.join([STEM, *(label + option for label, option in zip(labels, OPTIONS, strict=True))])
        assert parse_question(text) == MCQ(STEM, OPTIONS)
        assert parse_question(f"{text}\nAnswer: {labels[2].strip('．.、）) （【】')}").answer == "C"


def test_a_key_that_only_looks_latin_counts_where_the_labels_are_not_of_its_alphabet() -> None:
    ve = "\N{CYRILLIC CAPITAL LETTER VE}"
    assert letter_of_label(ve, "ABCD") == "B"
    assert letter_of_label(ve, "АБВГ") == "C"
    assert letter_of_label("B", [LETTERS[0], ve, "C"]) == "B"
    for key, labels in (("B", "АБВГ"), ("Б", "ABCD"), ("", "ABCD"), ("AB", "ABCD")):
        with pytest.raises(QuestionError, match="but the options are labeled"):
            letter_of_label(key, labels)
    with pytest.raises(QuestionError, match="the key is 2, which may count from 0 or from 1; write the letter, A to D"):
        letter_of_label("２", "ABCD")


def test_a_key_from_elsewhere_is_a_label_of_the_text() -> None:
    assert parse_question(lines("1."), "3").answer == "C"
    assert parse_question(f"{lines('X.')}\nAnswer: A", "c").answer == "C"
    with pytest.raises(QuestionError, match="the key is 'D', but the options are labeled A, B, C"):
        parse_question(lines("X."), "D")


def test_a_key_has_its_place_and_a_question_without_one_says_so() -> None:
    assert MCQ(STEM, OPTIONS, "B").answer_index == 1
    with pytest.raises(QuestionError, match="has no key; give it its 'answer'"):
        _ = MCQ(STEM, OPTIONS).answer_index


def test_a_question_of_broken_characters_is_refused() -> None:
    with pytest.raises(QuestionError, match="no valid text"):
        parse_question("Is it \udcff? A. yes B. no")


PLAIN = st.text("abc éß漢,;", min_size=1, max_size=20).map(lambda text: " ".join(text.split())).filter(bool)


@given(PLAIN, st.lists(PLAIN, min_size=2, max_size=10))
def test_a_rendered_question_parses_back(stem: str, options: list[str]) -> None:
    text = "\n".join([stem, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])
    assert parse_question(text) == MCQ(stem, tuple(options))


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_politely(text: str) -> None:
    with suppress(QuestionError):
        assert 2 <= len(parse_question(text).options) <= 10
