import pytest
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


GLOSSARY = """\
deadlock: a state in which each of several processes waits for something that
only another of them can give
demand paging: a page is brought into memory when it is used for the first time
dispatcher: the part of the kernel that hands the processor from one of several
processes to another: it saves and loads what they were doing, in a
few microseconds
fork: the system call by which a process makes another one that is like itself"""


def test_entries_of_a_glossary_stand_apart_however_long_their_lines_are() -> None:
    text = f"All of this was seen in the chapter on processes.\n{GLOSSARY}"
    lines = clean(text).split("\n")
    assert [line.partition(":")[0] for line in lines[1:]] == ["deadlock", "demand paging", "dispatcher", "fork"]
    assert lines[1].endswith("waits for something that only another of them can give")
    assert lines[3].endswith("in a few microseconds")


def test_entries_of_a_glossary_stand_apart_on_both_sides_of_a_page_s_end() -> None:
    lines = GLOSSARY.split("\n")
    first, second = clean_pages(["\n".join(lines[:3]), "\n".join(lines[3:])])
    assert (first.count("\n"), second.count("\n")) == (1, 1)


def test_colons_in_prose_begin_no_paragraph() -> None:
    text = (
        "Two things are needed before a program may run on it as it was meant to be\n"
        "run: memory to stand in and a processor that has the time to carry it out,\n"
        "as was said: no more than that is asked of a machine, and all other things\n"
        "that people put on a desk: these come later, if at all they come to be asked"
    )
    assert "\n" not in clean(text)


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


def test_arabic_presentation_forms_become_letters_and_direction_marks_go() -> None:
    assert clean("\ufee3\ufeae\ufea3\ufe92\ufe8e \u200fبالعالم\u202c") == "مرحبا بالعالم"
    assert clean("می\u200cخواهم") == "می\u200cخواهم"  # here the mark is part of the spelling


@pytest.mark.parametrize("numbers", [["7", "8", "9"], ["vii", "viii", "ix"], ["- 7 -", "- 8 -", "- 9 -"]])
def test_page_numbers_that_follow_the_pages_go(numbers: list[str]) -> None:
    texts = ["About forces and masses.", "Energy is conserved here.", "Heat flows downhill only."]
    assert clean_pages([f"{text}\n{number}" for text, number in zip(texts, numbers, strict=True)]) == texts
    assert clean_pages([f"{number}\n{text}" for text, number in zip(texts, numbers, strict=True)]) == texts


def test_a_page_number_that_says_so_goes_and_other_numbers_stay() -> None:
    assert clean_pages(["Text of one page.\nPage 3 of 10"]) == ["Text of one page."]
    for last in ("42", "mix", "3 of them"):
        assert clean_pages([f"The result is this.\n{last}", "Some other text.\n17"])[0].endswith(last)


def test_repeated_lines_stay_where_nothing_else_is() -> None:
    assert clean_pages(["the same"] * 4) == ["the same"] * 4


def test_known_titles_stand_alone_and_their_repetition_above_goes() -> None:
    pages = [
        "and so the section before ends with these words in it\nPaging moves\nmemory\nin units of one size, which are all",
        "Paging moves memory\nThe text goes on with a line that is as long as others\nand ends.",
    ]
    first, second = clean_pages(pages, [{"pagingmovesmemory"}, set()])
    assert first.split("\n")[1:] == ["Paging moves memory", "in units of one size, which are all"]
    assert second == "The text goes on with a line that is as long as others and ends."


def test_lines_of_code_and_rows_of_tables_stay_apart() -> None:
    code = ["total = 0", "for n in range(10):", "if n % 2 == 0:", "total += n", "print(total)"]
    prose = "A program that adds the even numbers below ten is as short as the following"
    assert clean("\n".join([prose, *code])).split("\n") == [prose, *code]
    listing = ["int main(void) {", "return 0;", "}"]
    assert clean("\n".join(listing)).split("\n") == listing
    rows = ["Earth 6371 9.8 11.2", "Mars 3390 3.7 5.0", "Moon 1737 1.6 2.4"]
    assert clean("\n".join([prose, *rows])).split("\n")[1:] == rows


def test_numbers_in_a_sentence_make_no_row() -> None:
    text = "In this example the frame is number 9, and the address that is found\nis 9404 in all, which is the sum of the two."
    assert "\n" not in clean(text)
    assert clean("the table has an index of 20-\nbit numbers") == "the table has an index of 20-bit numbers"


def test_a_lost_ligature_is_found_where_one_word_only_fits() -> None:
    assert clean("Di\ufffderent e\x00cient ways") == "Different efficient ways"
    assert clean("x\ufffd\ufffd\ufffd y\uffff") == "x\ufffd y\ufffd"


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
