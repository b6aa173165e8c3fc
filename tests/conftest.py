"""What the tests share: a data folder of their own, the real models loaded once, and small PDFs typeset on the spot."""

import os
import tempfile

# Before anything imports the application: no test may touch the user's data or reach a network.
_HOME = tempfile.TemporaryDirectory(prefix="mcqa-tests-")
os.environ["MCQA_HOME"] = _HOME.name
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from assistant.model import LanguageModel, load_model
from ingest.course import Course

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "corpus"
settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of this test alone; the converted language model is shared with the others."""
    folder = tmp_path / "home"
    folder.mkdir()
    shared = Path(_HOME.name)
    (shared / "models").mkdir(exist_ok=True)
    (folder / "models").symlink_to(shared / "models")
    monkeypatch.setenv("MCQA_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    """The embedded model, really converted and loaded."""
    return load_model()


@pytest.fixture(scope="session")
def operating_systems() -> Course:
    """The sample course, indexed once in the session's data folder."""
    course = Course("operating-systems")
    course.sync(CORPUS / "operating-systems")
    return course


@pytest.fixture
def make_pdf() -> Callable[[Path, str], Path]:
    """Return a function that typesets a PDF at a path from Typst markup; `#pagebreak()` begins a new page."""
    import typst

    def make(path: Path, markup: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = path.with_suffix(".typ")
        source.write_text(markup, encoding="utf-8")
        typst.compile(source, output=path, ignore_system_fonts=True)
        source.unlink()
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the operating-systems PDFs, for tests that change it."""
    target = tmp_path / "course"
    target.mkdir()
    for pdf in sorted((CORPUS / "operating-systems").glob("*.pdf")):
        shutil.copy(pdf, target)
    return target


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real textbooks and question sets, which is not part of the repository."""
    found = Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data")
    if not found.is_dir():
        pytest.skip("no real textbooks here; set MCQA_DATA to their folder")
    return found
