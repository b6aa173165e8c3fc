"""Files of JSON rows, plain or gzipped → their rows, one at a time."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from assistant.formats import not_json
from ingest.errors import UserError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file as JSON gave it, or why it is none. `line` counts lines, or the entries of a JSON list, from 1."""

    line: int
    value: Any
    error: str = ""


def read_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a `.jsonl` or `.json` file, `.gz` allowed: an object a line, or a JSON list.

    Bytes that are no UTF-8 spoil their own row only: they stay in its texts as surrogates, which the caller refuses. Raises
    UserError where the file as a whole cannot be read.
    """
    name = path.name.lower()
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file in it")
    if not name.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; use one of {', '.join(SUFFIXES)}")
    opened = gzip.open if name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from _read(file, path, listed=name.removesuffix(".gz").endswith(".json"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is no whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def _read(file: TextIO, path: Path, listed: bool) -> Iterator[Record]:
    start = file.read(1)
    if start in ("\udcff", "\udcfe", "\0"):
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8")
    while start.isspace():
        start = file.read(1)
    file.seek(0)
    if start == "[" and listed:
        yield from _entries(file, path)
        return
    for number, line in enumerate(file, start=1):
        if number == 1 and line.strip() == "{":
            raise UserError(f"{path} holds an object over several lines; write a list of rows, or one object a line")
        if line.strip():
            try:
                yield Record(number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Record(number, None, not_json(error, line))


def _entries(file: TextIO, path: Path) -> Iterator[Record]:
    text = file.read()
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {not_json(error, text)}") from error
    for number, value in enumerate(values, start=1):
        yield Record(number, value)
