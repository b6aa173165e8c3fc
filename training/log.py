"""The log of a stage, `trainer_log.jsonl`: an object a line, with the step, the epoch and numbers by name."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = "trainer_log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log that are whole; one that a kill cut short is none. No file, no lines."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def log_line(numbers: Mapping[str, Any]) -> str:
    """Return a line of the log; what is no number (NaN) is null in it."""
    plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}
    return json.dumps(plain) + "\n"
