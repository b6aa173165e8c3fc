"""Files of instructions in their usual layouts → conversations that end with the answer to learn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.pairs import Message
from training.preferences import RowError, check_prompt, read_message, read_messages, read_row, read_system, read_text
from training.records import read_records


@dataclass(frozen=True, slots=True)
class Instruction:
    """A prompt, which ends with a user's turn, and the answer to learn; `source` and `line` say where it stood."""

    prompt: tuple[Message, ...]
    answer: str
    source: str
    line: int

    @property
    def place(self) -> str:
        """Where the row stood, as in "alpaca.json row 3"."""
        return f"{self.source} row {self.line}"


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One instruction of a file, or why that row holds none."""

    line: int
    instruction: Instruction | None
    error: str = ""


def read_instructions(path: Path) -> Iterator[InstructionRow]:
    """Yield the rows of `path` in order. Every row's layout is told by its keys.

    - `{"prompt", "completion"}`: texts, or lists of `{"role", "content"}` of which the last of the completion is the answer
    - Alpaca: `{"instruction", "input", "output"}`; an input stands below its instruction
    - `{"messages": [{"role", "content"}, ...]}` and ShareGPT's `{"conversations": [{"from", "value"}, ...]}`: the last turn is
      the answer
    - preferences in any layout of `read_preferences`: their chosen answer

    A `system` text beside any of them stands in front. `.jsonl` and `.json`, gzipped or not, as `read_records` takes them. A
    row without an answer is yielded with its error. Raises UserError where the file as a whole cannot be read.
    """
    for record in read_records(path):
        if record.error:
            yield InstructionRow(record.line, None, record.error)
        elif _is_preference(record.value):
            for row in read_row(record.value, path.name, record.line):
                pair = row.pair
                chosen = None if pair is None else Instruction(pair.prompt, pair.chosen, path.name, record.line)
                yield _checked(record.line, chosen, row.error)
        else:
            try:
                prompt, answer = _read(record.value)
                yield _checked(record.line, Instruction(prompt, answer, path.name, record.line))
            except RowError as error:
                yield InstructionRow(record.line, None, str(error))


def _checked(line: int, found: Instruction | None, error: str = "") -> InstructionRow:
    if found is not None and not found.answer.strip():
        return InstructionRow(line, None, "the answer is empty")
    return InstructionRow(line, found, error)


def _is_preference(value: Any) -> bool:
    return isinstance(value, dict) and ("chosen" in value or "preference" in value or "completions" in value)


def _read(record: Any) -> tuple[tuple[Message, ...], str]:
    if not isinstance(record, dict):
        raise RowError(f"expected an object with 'prompt' and 'completion', found {type(record).__name__}")
    if "messages" in record:
        turns = read_messages(record["messages"], "messages")
    elif "conversations" in record:
        turns = _conversation(record["conversations"])
    elif "instruction" in record:
        turns = _alpaca(record)
    elif "prompt" in record and "completion" in record:
        turns = _completed(record["prompt"], "prompt", "user") + _completed(record["completion"], "completion", "assistant")
    else:
        keys = ", ".join(map(str, record)) or "none"
        raise RowError(f"no 'completion', 'output', 'messages' or 'conversations' to learn from; the keys are {keys}")
    turns = (*read_system(record), *turns)
    if turns[-1].role != "assistant":
        raise RowError(f"the conversation ends with a message of role '{turns[-1].role}'; it must end with the assistant's")
    check_prompt(turns[:-1])
    return turns[:-1], turns[-1].content


def _completed(value: Any, name: str, role: str) -> tuple[Message, ...]:
    return (
        (Message(role, read_text({name: value}, name)),)
        if isinstance(value, str) or value is None
        else read_messages(value, name)
    )


def _alpaca(record: Mapping[str, Any]) -> tuple[Message, ...]:
    given = read_text(record, "input") if record.get("input") is not None else ""
    asked = "\n\n".join(part for part in (read_text(record, "instruction"), given) if part.strip())
    return Message("user", asked), Message("assistant", read_text(record, "output"))


def _conversation(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RowError("'conversations' must be a list of at least one {from, value}")
    return tuple(read_message(turn, "conversations", "from", "value") for turn in value)
