from hypothesis import given
from hypothesis import strategies as st

from ingest.clean import clean_pages


def clean(text: str) -> str:
    return clean_pages([text])[0]


def test_words_broken_at_line_ends_are_joined() -> None:
    assert clean("the conser-\nvation of energy holds") == "the conservation of energy holds"
    assert clean("a delec\u00ad\ntari sentence") == "a delectari sentence"


def test_a_hyphen_that_belongs_to_the_word_survives_the_line_end() -> None:
    text = "a well-known fact stands here first\nand then the well-\nknown fact again"
    assert clean(text).endswith("and then the well-known fact again")
    assert clean("the theory of Navier-\nStokes flows") == "the theory of Navier-Stokes flows"
    assert clean("copy\u00adon\u00adwrite pages") == "copy-on-write pages"


def test_lines_become_paragraphs_and_headings_stand_alone() -> None:
    lines = [
        "1.2 Process states",
        "At any moment a process is in one of five states, and the kernel",
        "records which one it is in the process control block of the process",
        "itself.",
        "A second paragraph begins with a line that is as long as the others",
        "and then ends.",
    ]
    assert clean("\n".join(lines)).split("\n") == [lines[0], " ".join(lines[1:4]), " ".join(lines[4:])]


def test_list_items_keep_their_lines() -> None:
    text = "There are three states in this short list of them:\n• ready\n• running\n1. first\n2. second"
    assert clean(text).split("\n")[1:] == ["• ready", "• running", "1. first", "2. second"]


def test_ligatures_math_letters_and_control_characters_are_made_plain() -> None:
    assert clean("e\ufb03cient \ufb02uid 𝑥 = 𝐴\x00\x1b[31m") == "efficient fluid x = A[31m"
    assert clean("20 ℃ and x² stay") == "20 ℃ and x² stay"


def test_running_heads_and_page_numbers_go_and_other_lines_stay() -> None:
    pages = [f"Chapter 3: Memory\nText of page {n} is unique {'x' * n}.\n{n}" for n in range(1, 7)]
    cleaned = clean_pages(pages)
    assert cleaned == [f"Text of page {n} is unique {'x' * n}." for n in range(1, 7)]


def test_a_line_that_stands_on_two_pages_only_is_no_running_head() -> None:
    pages = ["Summary\nfirst text", "other\nsecond", "third\nmore", "Summary\nfourth text"]
    assert clean_pages(pages)[0].startswith("Summary")


def test_scripts_are_joined_as_they_are_written() -> None:
    assert clean("操作系统管理计算机的硬\n件资源并且提供服务") == "操作系统管理计算机的硬件资源并且提供服务"
    assert (
        clean("운영 체제는 컴퓨터의 자원을\n관리하는 소프트웨어이다") == "운영 체제는 컴퓨터의 자원을 관리하는 소프트웨어이다"
    )
    arabic = "مرحبا بالعالم"
    assert clean(arabic) == arabic


@given(st.lists(st.text(max_size=300), max_size=6))
def test_any_text_gives_as_many_pages_without_control_characters(raw: list[str]) -> None:
    cleaned = clean_pages(raw)
    assert len(cleaned) == len(raw)
    assert not any(ord(character) < 32 and character != "\n" for text in cleaned for character in text)
    assert all(line == line.strip() and line for text in cleaned if text for line in text.split("\n"))


@given(st.lists(st.text("abcdefg .", min_size=1, max_size=60), max_size=30))
def test_plain_letters_are_never_lost(lines: list[str]) -> None:
    letters = [c for line in lines for c in line if c.isalpha()]
    assert [c for c in clean("\n".join(lines)) if c.isalpha()] == letters
