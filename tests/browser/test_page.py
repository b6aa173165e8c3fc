"""The page in Chromium, as a student and a teaching assistant use it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assistant.model import LanguageModel
from ingest.course import Course

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed; `make test-browser` installs it", allow_module_level=True)

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
QUESTION = "Which bit of a page table entry says that a page was modified?\nA. present\nB. writable\nC. dirty\nD. <b>user</b>"


@pytest.fixture
def address(home: Path, lm: LanguageModel, operating_systems: Course) -> Iterator[str]:
    """The address of a running page whose data folder holds the sample course."""
    shutil.copytree(operating_systems.material.parent, home / "courses" / "operating-systems")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from assistant.cli import main; main()", "ui", "--no-open", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the page ended"
                assert time.monotonic() < deadline, "the page did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser page that records what is asked of other hosts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_page()
        browser.close()


def test_ask_and_upload(address: str, page: Page, tmp_path: Path, make_pdf: Callable[[Path, str], Path]) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if "127.0.0.1" not in request.url else None)
    page.goto(address)
    page.set_default_timeout(60_000)
    expect(page.locator("#course input")).to_have_value("operating-systems")

    page.fill("#question textarea", QUESTION)
    page.click("#ask")
    page.wait_for_selector("#answer .letter", timeout=90_000)
    assert page.inner_text("#answer .letter") in "ABCD"
    shares = [float(text.rstrip("%")) for text in page.locator("#answer .share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=2)
    assert "02-memory.pdf, p. 2" in page.locator("#answer .place").first.inner_text()
    assert "<b>user</b>" in page.inner_text("#answer")

    page.fill("#question textarea", "no options here")
    page.press("#question textarea", "Shift+Enter")
    expect(page.locator("#answer [role=alert]")).to_contain_text("no options found")

    page.get_by_role("tab", name="Courses").click()
    page.locator("#course-name input").fill("birds")
    page.keyboard.press("Enter")
    page.set_input_files("#uploads input[type=file]", make_pdf(tmp_path / "herons.pdf", "A heron waits in shallow water."))
    expect(page.locator("#uploads")).to_contain_text("herons")
    page.click("#index")
    page.wait_for_function("document.querySelector('#report textarea').value.includes('birds: 1 new')", timeout=60_000)

    page.reload()
    page.click("#course input")
    expect(page.get_by_role("option", name="birds")).to_be_visible()
    assert elsewhere == []
