"""One running page and one browser for all browser tests; each test has a visitor of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assistant.model import LanguageModel
from ingest.course import Course

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
PATIENCE = 90_000  # milliseconds: the machine may be busy


@dataclass(frozen=True)
class Running:
    """A running page: its address, and the data folder that it works on."""

    address: str
    home: Path


@pytest.fixture(scope="session")
def running(lm: LanguageModel, operating_systems: Course, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A page whose data folder holds the sample course, for all tests: whoever changes something names it by itself."""
    home = tmp_path_factory.mktemp("page")
    (home / "models").symlink_to(Path(os.environ["MCQA_HOME"]) / "models")
    shutil.copytree(operating_systems.material.parent, home / "courses" / "operating-systems")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from assistant.cli import main; main()", "ui", "--no-open", "--port", str(port)]
    environment = {**os.environ, "MCQA_HOME": str(home)}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, (home / "log").read_text(encoding="utf-8")
                    assert time.monotonic() < deadline, "the page did not start"
                    time.sleep(0.2)
            yield Running(f"http://127.0.0.1:{port}", home)
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: "Browser", running: Running) -> "Iterator[Callable[..., Page]]":
    """Return a function that opens the page for a new visitor; what is asked of other hosts fails the test."""
    contexts = []
    elsewhere: list[str] = []

    def listen(request: Any) -> None:
        if not request.url.startswith((running.address, "data:", "blob:")):
            elsewhere.append(request.url)

    def go(**options: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", listen)
        page.goto(running.address)
        page.wait_for_function("document.querySelector('#course input')?.value === 'operating-systems'")
        return page

    yield go
    for context in contexts:
        context.close()
    assert elsewhere == []
