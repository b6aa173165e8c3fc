"""A question file, a folder of them, or MMLU's folder → keyed questions to evaluate on, with solved examples to show first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from assistant.formats import Row, read_mcqs
from assistant.mcq import MCQ
from ingest.errors import UserError, did_you_mean

_SUFFIXES = (".jsonl", ".json", ".csv")


@dataclass(frozen=True, slots=True)
class Item:
    """A keyed question with a name of its own in the evaluation, and the solved examples that its prompt shows first.

    `place` is where it stands, as "FILE line N"; `fact` is what its row says that the answer rests on (OpenBookQA's `fact1`).
    """

    id: str
    mcq: MCQ
    subject: str
    examples: tuple[MCQ, ...] = ()
    place: str = ""
    fact: str = ""

    @property
    def key(self) -> str:
        """The letter of the right option."""
        assert self.mcq.answer is not None  # noqa: S101 -- read_items lets only keyed questions through
        return self.mcq.answer


@dataclass(frozen=True, slots=True)
class ItemSet:
    """The items, why rows could not be read (as "FILE line N: reason"), and where questions without a key stand."""

    items: tuple[Item, ...]
    bad: tuple[str, ...] = ()
    keyless: tuple[str, ...] = ()

    @property
    def without_key(self) -> int:
        """How many questions have no key."""
        return len(self.keyless)


def read_items(path: Path, *, shots: int = 0, subjects: Sequence[str] = (), limit: int | None = None) -> ItemSet:
    """Read the keyed questions of a file, of a folder of files, or of MMLU's folder (`test/*_test.csv`, `dev/*_dev.csv`).

    A question belongs to the subject that it names, else to that of its file's name. `subjects` keeps only these. `limit`
    takes at most so many, from all subjects in turn. With `shots`, each item gets the first so many questions of its
    subject from the folder `dev`. Raises UserError where there is no keyed question, or not enough examples.
    """
    rows, bad, keyless = _read(_question_files(path))
    if not rows:
        if keyless:
            raise UserError(f"{path}: no question has a key, and an evaluation needs keys; add 'answer' with the right letter")
        raise UserError(f"{path} holds no question" + (f"; {bad[0]}" if bad else ""))
    items = _limited(_of_subjects(path, _named(rows), subjects), limit)
    if shots:
        items = _with_examples(items, path, shots)
    return ItemSet(tuple(items), tuple(bad), tuple(keyless))


def _question_files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path} does not exist; give a question file or a folder of them")
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("test/*_test.csv"))
    try:
        found = found or sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if not found:
        raise UserError(f"{path} holds no question file; it needs {', '.join(_SUFFIXES)} files, or test/*_test.csv as MMLU has")
    return found


def _read(files: Sequence[Path]) -> tuple[list[tuple[Path, Row, MCQ]], list[str], list[str]]:
    """Return (file, row, question) of the keyed questions, what could not be read, and where those without a key stand."""
    keyed, bad, keyless = [], [], []
    for file in files:
        for row in read_mcqs(file):
            if row.mcq is None:
                bad.append(f"{file} line {row.line}: {row.error}")
            elif row.mcq.answer is None:
                keyless.append(f"{file} line {row.line}")
            else:
                keyed.append((file, row, row.mcq))
    return keyed, bad, keyless


def _named(rows: Sequence[tuple[Path, Row, MCQ]]) -> list[Item]:
    """Give each question its own id where no other has it, else its file and line."""
    ids = Counter(mcq.id for _, _, mcq in rows)
    return [
        Item(
            id=mcq.id if mcq.id and ids[mcq.id] == 1 else f"{file.name} line {row.line}",
            mcq=mcq,
            subject=_subject(file, mcq),
            place=f"{file} line {row.line}",
            fact=str(row.fields.get("fact1") or "").strip(),
        )
        for file, row, mcq in rows
    ]


def _subject(file: Path, mcq: MCQ) -> str:
    return mcq.subject or file.stem.removesuffix("_test").removesuffix("_dev")


def _plain(subject: str) -> str:
    return " ".join(subject.replace("_", " ").replace("-", " ").lower().split())


def _of_subjects(path: Path, items: list[Item], subjects: Sequence[str]) -> list[Item]:
    if not subjects:
        return items
    known = {_plain(item.subject): item.subject for item in items}
    for subject in subjects:
        if _plain(subject) not in known:
            hint = did_you_mean(_plain(subject), list(known)) or f"; --subject takes one of {', '.join(sorted(known.values()))}"
            raise UserError(f"{path} has no keyed question of the subject '{subject}'{hint}")
    wanted = {_plain(subject) for subject in subjects}
    return [item for item in items if _plain(item.subject) in wanted]


def _limited(items: list[Item], limit: int | None) -> list[Item]:
    """Return at most `limit` items in their order, as evenly from all subjects as these have them."""
    if limit is None or len(items) <= limit:
        return items
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.subject, []).append(index)
    in_turn = [index for turn in zip_longest(*groups.values()) for index in turn if index is not None]
    return [items[index] for index in sorted(in_turn[:limit])]


def _with_examples(items: Sequence[Item], path: Path, shots: int) -> list[Item]:
    folder = path if path.is_dir() else path.parent.parent if path.parent.name == "test" else path.parent
    dev = folder / "dev"
    if not dev.is_dir():
        raise UserError(f"--shots {shots} takes solved examples from {dev}, which is not there; put question files into it")
    pools: dict[str, list[MCQ]] = {}
    for file, _, mcq in _read(_question_files(dev))[0]:
        pools.setdefault(_plain(_subject(file, mcq)), []).append(mcq)
    found = []
    for item in items:
        # A question must not be shown with its own solution.
        pool = [mcq for mcq in pools.get(_plain(item.subject), ()) if mcq.question != item.mcq.question]
        if len(pool) < shots:
            remedy = f"use --shots {len(pool)}" if pool else "add some, or leave --shots out"
            raise UserError(f"{dev} has {len(pool)} solved examples of the subject '{item.subject}'; {remedy}")
        found.append(replace(item, examples=tuple(pool[:shots])))
    return found
