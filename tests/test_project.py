"""What the repository promises about itself: the map, the direction of imports, the sample courses."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pypdf
import pytest

from assistant.formats import read_mcqs

ROOT = Path(__file__).resolve().parent.parent
COURSES = ["classical-mechanics", "machine-learning", "operating-systems"]
LEVELS = {"ingest": 0, "assistant": 1, "training": 2}


def test_every_path_in_the_readme_exists_and_every_module_is_on_its_map() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w./-]+)` \|", readme, re.MULTILINE))
    assert [path for path in listed if not (ROOT / path).exists()] == []
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in LEVELS
        for path in (ROOT / package).glob("*.py")
        if path.stem != "__init__"
    }
    assert modules - listed == set()


def test_imports_go_down_only() -> None:
    for package, level in LEVELS.items():
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    assert LEVELS.get(name.split(".")[0], 0) <= level, f"{path.name} imports {name}"


@pytest.mark.parametrize("course", COURSES)
def test_a_sample_course_keeps_what_it_promises(course: str) -> None:
    folder = ROOT / "corpus" / course
    readers = {path.name: pypdf.PdfReader(path) for path in folder.glob("*.pdf")}
    assert sum(len(reader.pages) for reader in readers.values()) >= 12
    assert {path.stem for path in folder.glob("*.typ")} == {path.removesuffix(".pdf") for path in readers}
    rows = list(read_mcqs(folder / "questions.jsonl"))
    assert len(rows) == 25
    assert all(row.mcq and row.mcq.answer for row in rows)
    keys = Counter(row.mcq.answer for row in rows if row.mcq)
    assert max(keys.values()) <= 8
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        text = readers[record["document"]].pages[record["page"] - 1].extract_text()
        flat = " ".join(re.sub("\u00ad\\s*\n", "", text).split())
        assert record["evidence"] in flat, record["id"]


def test_the_sample_courses_are_typeset_from_their_sources() -> None:
    shown = subprocess.run(
        [sys.executable, ROOT / "corpus" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stdout) == (0, "")
