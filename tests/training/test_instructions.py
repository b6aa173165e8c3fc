"""Instruction files in every layout, and what is said of rows that hold no answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import UserError
from training.instructions import InstructionRow, read_instructions
from training.pairs import Message


def read(folder: Path, *rows: Any, name: str = "rows.jsonl") -> list[InstructionRow]:
    path = folder / name
    path.write_text(json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    return list(read_instructions(path))


ASKED = (Message("user", "Why is the sky blue?"),)
BRIEF = (Message("system", "Be brief."), *ASKED)
SHAREGPT = [{"from": "human", "value": "Why is the sky blue?"}, {"from": "gpt", "value": "Light scatters."}]
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}, {"role": "assistant", "content": "Light scatters."}]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Why is the sky blue?", "completion": "Light scatters."}, ASKED),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, ASKED),
        ({"instruction": "Why is the sky blue?", "input": "", "output": "Light scatters."}, ASKED),
        ({"instruction": "Why is the sky blue?", "output": "Light scatters.", "system": "Be brief."}, BRIEF),
        ({"messages": MESSAGES}, ASKED),
        ({"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]}, BRIEF),
        ({"conversations": SHAREGPT, "system": "Be brief."}, BRIEF),
        ({"prompt": "Why is the sky blue?", "chosen": "Light scatters.", "rejected": "No idea."}, ASKED),
        ({"system": "Be brief.", "question": "Why is the sky blue?", "chosen": "Light scatters.", "rejected": "Eh."}, BRIEF),
        ({"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "Eh."}}, ASKED),
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, Any], prompt: tuple[Message, ...]) -> None:
    (found,) = read(tmp_path, row)
    assert found.instruction is not None, found.error
    assert found.instruction.prompt == prompt
    assert found.instruction.answer == "Light scatters."
    assert found.instruction.place == "rows.jsonl row 1"


def test_an_input_stands_below_its_instruction(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"instruction": "Translate.", "input": "Himmel", "output": "sky"}, name="alpaca.json")
    assert found.instruction is not None
    assert found.instruction.prompt == (Message("user", "Translate.\n\nHimmel"),)
    assert found.instruction.place == "alpaca.json row 1"


def test_a_conversation_ends_with_the_answer_to_learn(tmp_path: Path) -> None:
    turns = [*MESSAGES, {"role": "user", "content": "And red?"}, {"role": "assistant", "content": "Dusk."}]
    (found,) = read(tmp_path, {"messages": turns})
    assert found.instruction is not None
    assert [message.content for message in found.instruction.prompt] == ["Why is the sky blue?", "Light scatters.", "And red?"]
    assert found.instruction.answer == "Dusk."


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (7, "expected an object with 'prompt' and 'completion', found int"),
        ({"text": "Hi"}, "no 'completion', 'output', 'messages' or 'conversations' to learn from; the keys are text"),
        ({}, "the keys are none"),
        ({"prompt": "Why?", "completion": 3}, "'completion' must be a text or a list"),
        ({"prompt": "Why?", "completion": None}, "no 'completion'"),
        ({"prompt": "Why?", "completion": "  "}, "the answer is empty"),
        ({"prompt": " ", "completion": "So."}, "the prompt is empty"),
        ({"instruction": "Why?"}, "no 'output'"),
        ({"instruction": "Why?", "output": ["So."]}, "'output' must be a text, not list"),
        ({"messages": MESSAGES[:1]}, "ends with a message of role 'user'; it must end with the assistant's"),
        ({"messages": MESSAGES[1:]}, "no 'prompt'"),
        ({"messages": []}, "not empty"),
        ({"messages": [*MESSAGES, MESSAGES[1]]}, "the prompt ends with a message of role 'assistant'"),
        ({"messages": [{"role": "tool", "content": "x"}, *MESSAGES]}, "a message of role 'tool'"),
        ({"conversations": "Hi"}, "'conversations' must be a list"),
        ({"conversations": [{"value": "Hi"}]}, "'conversations' must hold messages"),
        ({"prompt": "Why?", "chosen": "", "rejected": "x"}, "the answer is empty"),
        ({"prompt": "Why?", "chosen": "x"}, "no 'rejected'"),
    ],
)
def test_bad_rows_are_named_and_the_rest_is_read(tmp_path: Path, row: Any, words: str) -> None:
    good = {"messages": MESSAGES}
    first, bad, last = read(tmp_path, good, row, good)
    assert first.instruction is not None
    assert last.instruction is not None
    assert bad.instruction is None
    assert bad.line == 2
    assert words in bad.error


def test_lines_that_are_no_json_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{broken\n', encoding="utf-8")
    good, bad = read_instructions(path)
    assert good.instruction is not None
    assert (bad.line, bad.instruction) == (2, None)
    assert "not valid JSON" in bad.error
    with pytest.raises(UserError, match="there is no file"):
        list(read_instructions(tmp_path / "missing.jsonl"))
