"""The questions written for tuning: each row can be used, no key gives itself away, and none is one of those that judge."""

import json
from collections import Counter
from pathlib import Path

import pytest

from assistant.items import read_items
from assistant.mcq import MCQ
from ingest.words import terms

FOLDER = Path(__file__).resolve().parents[2] / "training" / "questions"
FILES = sorted(path.name for path in FOLDER.glob("*.jsonl"))


def questions(path: Path) -> list[MCQ]:
    return [item.mcq for item in read_items(path).items]


def right(mcq: MCQ) -> str:
    return mcq.options[mcq.answer_index]


@pytest.mark.parametrize("name", FILES)
def test_written_questions_are_whole_and_keys_cannot_be_told_by_place_or_length(name: str) -> None:
    items = read_items(FOLDER / name)
    assert not items.bad
    assert not items.keyless
    mcqs = [item.mcq for item in items.items]
    assert len(mcqs) >= 900
    assert len({mcq.id for mcq in mcqs}) == len(mcqs)
    assert len({(mcq.question.casefold(), right(mcq).casefold()) for mcq in mcqs}) == len(mcqs)
    assert all(len(set(map(str.casefold, mcq.options))) == len(mcq.options) >= 3 for mcq in mcqs)
    keys = Counter(mcq.answer for mcq in mcqs)
    assert all(0.2 < keys[letter] / len(mcqs) < 0.3 for letter in "ABCD")
    longest = sum(len(right(mcq)) > max(len(other) for other in mcq.options if other != right(mcq)) for mcq in mcqs)
    assert longest / len(mcqs) < 0.35


@pytest.mark.parametrize("name", ["more-readings", "readings", "reasoning-readings"])
def test_readings_hold_what_is_asked_about_them(name: str) -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / name).glob("*.md")}
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert f"\n## {row['section']}\n" in texts[row["document"]], row["id"]


def test_no_written_question_nearly_repeats_one_of_the_textbooks(data: Path) -> None:
    own = [
        (set(terms(mcq.question)), set(terms(right(mcq))))
        for path in sorted((data / "textbooks").glob("*.jsonl"))
        if not path.name.endswith(".sections.jsonl")
        for mcq in questions(path)
    ]
    for name in FILES:
        for mcq in questions(FOLDER / name):
            asked, answered = set(terms(mcq.question)), set(terms(right(mcq)))
            for words, answer in own:
                assert len(words & asked) <= 0.75 * len(words | asked) or not answer & answered, f"{mcq.id}: {mcq.question}"
