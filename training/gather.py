"""A recipe's files → the rows of a stage, found and checked before any model is loaded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assistant.items import read_items
from assistant.mcq import MCQ
from assistant.quiz import make_quiz
from ingest.course import Course
from ingest.errors import UserError
from training.filters import filter_repeats, filter_rows
from training.instructions import Instruction, read_instructions
from training.pairs import normalize
from training.preferences import read_preferences
from training.prepare import Preparation, Prepared, Share, load, prepare
from training.recipe import DPO, SFT, File, Questions, Recipe, Split, find

_T = TypeVar("_T")
_NAMED = 5  # bad rows that are told of


@dataclass(frozen=True, slots=True)
class Asked:
    """A keyed question of a recipe: where it stands, the course to search, and what the row shows instead of passages.

    `made_of` is the text that the question was made of, if it was. Passages that hold it are not shown with the question: with
    them to copy from, it would teach how to find the same words again instead of how to read.
    """

    place: str
    mcq: MCQ
    examples: tuple[MCQ, ...] = ()
    course: str | None = None
    fact: str | None = None
    made_of: str | None = None


def preferences(recipe: Recipe, stage: DPO, data: Path | None) -> Prepared:
    """Return the pairs of a preference stage, filtered and split. Raises UserError where files or rows are missing."""
    sources = []
    for file in stage.data:
        path = find(recipe, file.file, data, file.origin)
        source = load(_share(path, file), read_preferences(path, recipe.seed))
        kept, _ = filter_rows(source.pairs, file.filters)
        source.pairs, _ = filter_repeats(kept, file.filters)
        sources.append(source)
    split = Preparation(split=stage.split.parts, split_by=stage.split.by, seed=recipe.seed, filters=stage.filters)
    return prepare(sources, split)


def _share(path: Path, file: File) -> Share:
    if isinstance(file.use, float):
        if file.use > 1:
            raise UserError(f"'use: {file.use:g}' of {path.name} is no fraction; write a whole number of rows")
        return Share(path, fraction=file.use)
    return Share(path, count=file.use)


def questions(recipe: Recipe, wanted: Sequence[Questions], data: Path | None) -> list[Asked]:
    """Return the keyed questions of files and folders. Raises UserError naming the first row that is bad or has no key."""
    found: list[Asked] = []
    for one in wanted:
        course = None if one.course is None else Course.open(one.course)
        if one.file is None:
            assert course is not None  # noqa: S101 -- the recipe was checked
            found += _made(course, one, recipe.seed)
            continue
        path = find(recipe, one.file, data, one.origin)
        items = read_items(path, shots=one.shots, subjects=one.subjects, limit=one.use)
        if items.bad:
            more = f", and {len(items.bad) - _NAMED} more" if len(items.bad) > _NAMED else ""
            raise UserError(f"bad rows: {'; '.join(items.bad[:_NAMED])}{more}; mend them or take them out")
        if items.keyless:
            more = f" and {len(items.keyless) - 1} more" if len(items.keyless) > 1 else ""
            raise UserError(f"{items.keyless[0]}{more}: no key, and training needs one for each; add 'answer'")
        for item in items.items:
            if one.fact and not item.fact:
                raise UserError(f"{item.place}: no 'fact1'; leave 'fact' out of the recipe, or use a file that has facts")
            found.append(Asked(item.place, item.mcq, item.examples, one.course, item.fact if one.fact else None))
    return found


def _made(course: Course, wanted: Questions, seed: int) -> list[Asked]:
    pages = {record.path: course.pages(record.path) for record in course.documents()}
    made = make_quiz(pages, kinds=wanted.quiz, limit=wanted.use, seed=seed)
    if not made:
        raise UserError(f"the pages of course '{course.name}' give no {wanted.name}; take them out of the recipe")
    return [
        Asked(f"course {course.name}: {item.document} page {item.page}", item.mcq, course=course.name, made_of=item.evidence)
        for item in made
    ]


def without(asked: Sequence[Asked], held: Sequence[Asked]) -> list[Asked]:
    """Return those of the questions that do not stand among `held` as well, however they are written."""
    known = {normalize(one.mcq.question) for one in held}
    return [one for one in asked if normalize(one.mcq.question) not in known]


def instructions(recipe: Recipe, stage: SFT, data: Path | None) -> tuple[list[list[Instruction]], list[str]]:
    """Return the rows of a supervised stage in as many parts as its split has, and which rows were left out and why.

    Raises UserError where files are missing or too few rows are left.
    """
    found: list[Instruction] = []
    notes: list[str] = []
    for file in stage.data:
        path = find(recipe, file.file, data, file.origin)
        rows = list(read_instructions(path))
        bad = [f"left out: {path.name} row {row.line}: {row.error}" for row in rows if row.instruction is None]
        notes += [*bad[:_NAMED], *([f"left out: {len(bad) - _NAMED} more rows of {path.name}"] if len(bad) > _NAMED else [])]
        share = _share(path, file)
        kept = [row.instruction for row in rows if row.instruction is not None]
        kept.sort(key=lambda row: hashlib.sha256(f"{recipe.seed} {row.prompt} {row.answer}".encode()).digest())
        wanted = share.count if share.fraction is None else round(share.fraction * len(kept))
        found += kept[:wanted]
    keys = [normalize("\n".join(turn.content for turn in row.prompt)) for row in found]
    return _split(found, keys, stage.split, recipe.seed, "rows"), notes


def split_questions(asked: Sequence[Asked], split: Split, seed: int) -> list[list[Asked]]:
    """Return the questions in as many parts as the split has shares; equal questions (normalized) in one part."""
    return _split(asked, [normalize(one.mcq.question) for one in asked], split, seed, "questions")


def _split(rows: Sequence[_T], keys: Sequence[str], split: Split, seed: int, name: str) -> list[list[_T]]:
    """Return `rows` in parts, those of one key together unless the split is by row; which part depends on keys and seed."""
    groups: dict[str, list[_T]] = {}
    for place, (row, key) in enumerate(zip(rows, keys, strict=True)):
        groups.setdefault(key if split.by == "prompt" else f"{place} {key}", []).append(row)
    parts: list[list[_T]] = [[] for _ in split.parts]
    done = 0
    for key in sorted(groups, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest()):
        # A group goes where its middle falls.
        middle, at = 100 * (done + len(groups[key]) / 2) / len(rows), 0
        while at < len(parts) - 1 and middle > sum(split.parts[: at + 1]):
            at += 1
        parts[at] += groups[key]
        done += len(groups[key])
    if not all(parts):
        percentages = "/".join(f"{part:g}" for part in split.parts)
        raise UserError(f"{len(rows)} {name} are too few to split {percentages}; give more data or another split")
    return parts
