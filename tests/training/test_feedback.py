"""Students' corrections → questions and pairs, and the command that makes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from assistant.feedback import record
from assistant.formats import read_mcqs
from ingest.errors import UserError
from training import cli
from training.feedback import feedback_pairs, read_feedback


def correction(question: str, letter: str = "A", assistant: str = "B", **more: Any) -> dict[str, Any]:
    return {
        "question": question, "options": ["the dirty bit", "the present bit"], "letter": letter, "assistant": assistant,
        "course": "os", "passages": [{"document": "a.pdf", "page": 3, "text": "x"}], **more,
    }  # fmt: skip


def written(path: Path, *records: dict[str, Any]) -> Path:
    for one in records:
        record(one, path)
    return path


def test_corrections_become_questions_and_pairs(tmp_path: Path) -> None:
    path = written(tmp_path / "f.jsonl", correction("Which bit?"), correction("Which one?", "B", "B"))
    found = read_feedback(path)
    assert [one.to_json()["answer"] for one in found.corrections] == ["A", "B"]
    assert (found.corrections[0].to_json()["document"], found.corrections[0].to_json()["page"]) == ("a.pdf", 3)
    (row,) = feedback_pairs(found.corrections, "f.jsonl")  # where the model was right there is nothing to prefer
    assert row.pair is not None
    assert (row.pair.chosen.strip(), row.pair.rejected.strip()) == ("the dirty bit", "the present bit")
    assert row.pair.prompt[0].content.startswith("Question: Which bit?")


def test_conflicting_corrections_are_named_and_left_out(tmp_path: Path) -> None:
    swapped = correction("which  BIT?", "A") | {"options": ["the present bit", "the dirty bit"]}
    path = written(tmp_path / "f.jsonl", correction("Which bit?", "A"), swapped, correction("Other?"))
    found = read_feedback(path)
    assert [one.mcq.question for one in found.corrections] == ["Other?"]
    (conflict,) = found.conflicts
    assert "lines 1, 2" in conflict
    assert "'the dirty bit' and 'the present bit'" in conflict


def test_the_last_correction_of_one_answer_counts_and_agreeing_ones_are_one(tmp_path: Path) -> None:
    path = written(
        tmp_path / "f.jsonl",
        correction("Which bit?", "B", asked="one"),
        correction("Which bit?", "A", asked="one"),
        correction("Which bit?", "A", asked="two"),
    )
    (found,) = read_feedback(path).corrections
    assert (found.mcq.answer, found.times) == ("A", 2)


def test_bad_lines_cost_no_other(tmp_path: Path) -> None:
    path = written(
        tmp_path / "f.jsonl", {"x": 1}, correction("Which bit?", "D"), correction("Q?", assistant="Z"), correction("Good?")
    )
    with path.open("a", encoding="utf-8") as file:
        file.write("[]\n{half")
    found = read_feedback(path)
    assert [one.mcq.question for one in found.corrections] == ["Good?"]
    assert [line for line, _ in found.bad] == [1, 2, 3, 5, 6]
    with pytest.raises(UserError, match="no corrections at"):
        read_feedback(tmp_path / "none.jsonl")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["mcqa-train", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_writes_a_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [correction(f"Which bit is number {word}?") for word in ("one", "two", "three", "four", "five")]
    written(home / "feedback.jsonl", *records, {"x": 1})
    out = tmp_path / "out"
    assert run(monkeypatch, "prepare", "feedback", "-o", out) == 3  # the bad line
    rows = list(read_mcqs(out / "questions.jsonl"))
    assert [row.mcq.answer for row in rows if row.mcq] == ["A"] * 5
    assert rows[0].fields["page"] == 3
    texts = [(out / f"{part}.jsonl").read_text(encoding="utf-8") for part in ("train", "test")]
    parts = [json.loads(line) for text in texts for line in text.splitlines()]
    assert len(parts) == 5
    assert {row["chosen"][0]["content"].strip() for row in parts} == {"the dirty bit"}
    assert json.loads((out / "card.json").read_text(encoding="utf-8"))["questions"] == 5
    assert run(monkeypatch, "prepare", "feedback", "-o", out) == 1
    assert run(monkeypatch, "prepare", "feedback", "-o", out, "--force") == 3


def test_few_corrections_still_give_questions(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(home / "feedback.jsonl", correction("Which bit?"))
    assert run(monkeypatch, "prepare", "feedback", "-o", tmp_path / "out") == 0
    assert len(list(read_mcqs(tmp_path / "out" / "questions.jsonl"))) == 1
    assert not (tmp_path / "out" / "train.jsonl").exists()
