"""A PDF's page as a picture: where the passage is marked, and what a hostile file can do."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from ingest.course import Course
from ingest.errors import UnreadableDocumentError
from ingest.pageimage import find_text, render_page

MakePdf = Callable[[Path, str], Path]
MARK = (255, 232, 140)
TEXT = "The translation lookaside buffer keeps recently used entries of the page table close to the processor."


def marked_rows(png: bytes) -> set[int]:
    """The rows of the picture that hold the marker's color."""
    picture = Image.open(BytesIO(png)).convert("RGB")
    wide, high = picture.size
    pixels = picture.load()
    assert pixels is not None
    return {y for y in range(high) if any(pixels[x, y] == MARK for x in range(0, wide, 3))}


def test_the_passage_is_marked_where_it_stands_and_nowhere_else(tmp_path: Path, make_pdf: MakePdf) -> None:
    path = make_pdf(tmp_path / "a.pdf", f"Herons wade in shallow water.\n#v(12cm)\n{TEXT}")
    image = render_page(path, 1, TEXT)
    rows = marked_rows(image.png)
    assert image.marked
    assert image.pages == 1
    high = Image.open(BytesIO(image.png)).size[1]
    assert min(rows) > 0.4 * high  # below the 12 cm, so not on the first line
    assert not render_page(path, 1, "Nothing of this kind stands on the page, whatever one looks for.").marked
    assert marked_rows(render_page(path, 1).png) == set()


def test_hyphens_and_line_breaks_do_not_hide_a_passage(tmp_path: Path, make_pdf: MakePdf) -> None:
    narrow = f'#set page(width: 7cm)\n#set text(hyphenate: true, lang: "en")\n#set par(justify: true)\n{TEXT}'
    path = make_pdf(tmp_path / "a.pdf", narrow)
    assert render_page(path, 1, TEXT.replace(" ", "\n  ")).marked
    assert len(marked_rows(render_page(path, 1, TEXT).png)) > 40


def test_a_passage_that_goes_on_over_the_page_is_found_in_part() -> None:
    page = "herehimselfbegins" + "thelastsentenceofthispagegoeson" * 2
    passage = "thelastsentenceofthispagegoeson" * 2 + "andendsonthenextone"
    (part,) = find_text(passage, page)
    assert part[0] == len("herehimselfbegins")
    assert part[1] > len(page) - 12
    assert find_text("", page) == []
    assert find_text("somethingelseentirely", page) == []


def test_what_cannot_be_drawn_says_why(tmp_path: Path, make_pdf: MakePdf) -> None:
    path = make_pdf(tmp_path / "a.pdf", "One page.")
    with pytest.raises(UnreadableDocumentError, match="pages 1 to 1"):
        render_page(path, 2)
    with pytest.raises(UnreadableDocumentError, match="took too long"):
        render_page(path, 1, seconds=0.001)
    damaged = tmp_path / "b.pdf"
    damaged.write_bytes(b"%PDF-1.7\n" + b"\0" * 3000)
    with pytest.raises(UnreadableDocumentError, match="cannot be opened"):
        render_page(damaged, 1)
    with pytest.raises(UnreadableDocumentError, match="not there any more"):
        render_page(tmp_path / "gone.pdf", 1)


def test_a_huge_page_gives_a_picture_of_bounded_size(tmp_path: Path, make_pdf: MakePdf) -> None:
    path = make_pdf(tmp_path / "a.pdf", "#set page(width: 480cm, height: 20cm)\nWide.")
    wide, high = Image.open(BytesIO(render_page(path, 1).png)).size
    assert wide <= 1001
    assert high <= 1801


def test_a_course_draws_its_own_pages_only(operating_systems: Course) -> None:
    hit = operating_systems.search("page table entry dirty bit", 1)[0]
    assert operating_systems.page_image(hit.passage.document, hit.passage.page_first, hit.passage.text).marked
    with pytest.raises(Exception, match="holds no document"):
        operating_systems.page_image("../../../etc/passwd", 1)
