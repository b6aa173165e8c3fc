"""The page in Chromium, as a student and a teaching assistant use it."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
    pytest.skip("Chromium is not installed; `make test-browser` installs it", allow_module_level=True)

from playwright.sync_api import Page, expect

expect.set_options(timeout=90_000)  # the machine may be busy
Visit = Callable[..., Page]
MakePdf = Callable[[Path, str], Path]
QUESTION = "Which bit of a page table entry says that a page was modified?\nA. present\nB. writable\nC. dirty\nD. <b>user</b>"
SECOND = "What causes thrashing?\nA. too few frames\nB. too many frames"
HOSTILE = "<script>window.harm=1</script><img src=x onerror='window.harm=2'>"


def ask(page: Page, question: str = QUESTION) -> None:
    before = page.locator("#answer .asked").all_inner_texts()
    page.fill("#question textarea", question)
    page.press("#question textarea", "Control+Enter")
    page.wait_for_function("before => document.querySelector('#answer .asked')?.innerText !== before", arg="".join(before))


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_ask_and_see_the_page_it_rests_on(visit: Visit) -> None:
    page = visit()
    page.fill("#question textarea", QUESTION)
    expect(page.locator("#understood")).to_contain_text("a question with 4 options")
    expect(page.locator("#options textarea")).to_have_value("A. present\nB. writable\nC. dirty\nD. <b>user</b>")
    page.press("#question textarea", "Control+Enter")
    page.wait_for_selector("#answer .letter")
    assert page.inner_text("#answer .letter") in "ABCD"
    shares = [float(text.rstrip("%")) for text in page.locator("#answer .share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=2)
    assert "<b>user</b>" in page.inner_text("#answer")

    picture = page.locator("#ask-page-sheet img")
    expect(picture).to_have_attribute("alt", "02-memory.pdf, page 2 of 6 with the passage highlighted")
    assert picture.evaluate("image => image.naturalWidth") > 500
    page.click("#ask-page-forth")
    expect(picture).to_have_attribute("alt", "02-memory.pdf, page 3 of 6")
    page.click("#ask-page-back")
    expect(picture).to_have_attribute("alt", "02-memory.pdf, page 2 of 6 with the passage highlighted")
    sources = page.locator("#sources .source").count()
    assert sources == 2
    page.locator("#sources button.show").last.click()
    expect(page.locator("#sources .source.open .place")).to_contain_text(f"{sources}. ")

    expect(page.locator("#sources .moved")).to_have_count(sources)  # how much each passage moved the answer comes by itself

    page.fill("#question textarea", "no options here")
    expect(page.locator("#understood")).to_contain_text("no options found")
    page.press("#question textarea", "Control+Enter")
    expect(page.locator("#answer [role=alert]")).to_contain_text("No options found")


def test_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#question') !== null"):
            break
    else:
        pytest.fail("the question's field cannot be reached with Tab")
    page.keyboard.insert_text(QUESTION)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer .letter")
    ask(page, SECOND)
    expect(page.locator("#answer .asked")).to_have_text("What causes thrashing?")
    page.keyboard.press("ArrowLeft")  # the focus went to the answer
    expect(page.locator("#answer .asked")).to_contain_text("Which bit")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#answer .asked")).to_have_text("What causes thrashing?")


def test_a_correction_is_recorded(visit: Visit, running: Any) -> None:
    page = visit()
    ask(page)
    page.click("#correct button")
    page.locator("#right-letter label").nth(2).click()
    page.click("#save-correction")
    expect(page.locator("#correct")).to_contain_text("C is noted")
    expect(page.locator("#answer .option.right")).to_contain_text("dirty")
    (line,) = (running.home / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert (record["letter"], record["course"]) == ("C", "operating-systems")
    assert record["passages"][0]["document"] == "02-memory.pdf"


def test_upload_find_rename_and_remove(visit: Visit, tmp_path: Path, make_pdf: MakePdf) -> None:
    page = visit()
    tab(page, "Courses")
    page.locator("#course-name input").fill("birds")
    page.keyboard.press("Enter")
    markup = f"A heron waits in shallow water for its prey. #raw({json.dumps(HOSTILE)})"
    files = [make_pdf(tmp_path / "herons.pdf", markup), make_pdf(tmp_path / "blank.pdf", "#rect()")]
    page.set_input_files("#uploads input[type=file]", files)
    expect(page.locator("#uploads")).to_contain_text("herons")
    page.click("#index")
    expect(page.locator("#report")).to_contain_text("birds: 1 new")
    expect(page.locator("#report")).to_contain_text("blank.pdf could not be read")
    expect(page.locator("#documents")).to_contain_text("No text in it")

    tab(page, "Ask")
    page.click("#course input")
    page.get_by_role("option", name="birds").click()
    ask(page, f"What waits in shallow water? {HOSTILE}\nA. a heron\nB. {HOSTILE}")
    expect(page.locator("#sources .place").first).to_have_text("1. herons.pdf, p. 1")
    expect(page.locator("#sources .passage").first).to_contain_text("<script>window.harm")
    expect(page.locator("#ask-page-sheet img")).to_be_visible()
    assert page.evaluate("window.harm") is None

    tab(page, "Courses")
    page.click("#care button")
    page.fill("#new-name textarea, #new-name input", "herons")
    page.click("#rename")
    expect(page.locator("#report")).to_contain_text("now called herons")
    expect(page.locator("#overview")).to_contain_text("herons")
    expect(page.locator("#course-name input")).to_have_value("herons")
    page.click("#remove")
    page.click("#remove-yes")
    expect(page.locator("#report")).to_contain_text("herons is removed")
    expect(page.locator("#overview")).not_to_contain_text("herons")


def test_practise_with_a_history_that_survives_a_reload(visit: Visit) -> None:
    page = visit()
    tab(page, "Practise")
    page.fill("#practise-count input[type=number]", "2")
    page.keyboard.press("Tab")
    page.click("#practise-start")
    for number in (1, 2):
        expect(page.locator("#practise-question")).to_contain_text(f"Question {number} of 2")
        page.locator("#practise-letter label").first.click()
        page.keyboard.press("Control+Enter")
        expect(page.locator("#practise-verdict .notice")).to_be_visible()
        expect(page.locator("#practise-page-sheet img")).to_be_visible()
        page.keyboard.press("Control+Enter")
    expect(page.locator("#practise-question")).to_contain_text("Your score")
    page.reload()
    tab(page, "Practise")
    page.click("#practise-history button")
    expect(page.locator("#practise-history tbody tr")).to_have_count(2)
    page.click("#practise-export")
    page.wait_for_selector("#practise-csv a[href]")
    with page.expect_download() as download:
        page.locator("#practise-csv a[href]").first.click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_file_is_answered(visit: Visit, tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {n}?", "choices": [str(2 * n), "nothing"], "answer": "A"} for n in range(5)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"question": HOSTILE}])), encoding="utf-8")
    page = visit()
    tab(page, "Batch")
    page.set_input_files("#batch-file input[type=file]", path)
    expect(page.locator("#batch-preview")).to_contain_text("no options found")
    page.click("#batch-run")
    expect(page.locator("#batch-summary")).to_contain_text("95 % interval")
    expect(page.locator("#batch-rows tbody tr")).to_have_count(6)
    page.locator("#batch-filter label").filter(has_text="Not answered").click()
    expect(page.locator("#batch-rows tbody tr")).to_have_count(1)
    expect(page.locator("#batch-files")).to_contain_text("answers")
    assert page.evaluate("window.harm") is None
    tab(page, "Models")
    expect(page.locator("#model-card")).to_contain_text("smollm2-135m-mcqa")


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_both_shades_fit_a_phone(visit: Visit, shade: str) -> None:
    page = visit(color_scheme=shade, viewport={"width": 390, "height": 844})
    ask(page)
    expect(page.locator("#ask-page-sheet img")).to_be_visible()
    for name in ("Ask", "Practise"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).every(part => Number(part) > 128)"
    assert page.evaluate(light) == (shade == "light")
    page.click("#shade")
    switched = f"({light}) === {str(shade == 'dark').lower()}"
    page.wait_for_function(switched)
    page.reload()
    page.wait_for_selector("#ask")
    page.wait_for_function(switched)  # what a visitor chose is remembered


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_disabled_visitors(visit: Visit, shade: str) -> None:
    axe = Path(os.environ.get("MCQA_AXE", ""))
    if not axe.is_file():
        pytest.skip("axe-core is not here; `make test-browser` fetches it with npm")
    page = visit(color_scheme=shade)
    ask(page)
    expect(page.locator("#ask-page-sheet img")).to_be_visible()
    page.evaluate(axe.read_text(encoding="utf-8"))  # as an added script, the page's policy would rightly refuse it
    problems = []
    for name in ("Ask", "Practise", "Batch", "Courses", "Models"):
        tab(page, name)
        page.wait_for_timeout(500)
        found = page.evaluate("async () => (await axe.run()).violations")
        problems += [
            (name, one["id"], node["html"][:160])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    assert problems == []
