"""A recipe judged on textbooks that it did not see: tuned on all but one of them, asked that one's questions, for each in turn.

    python benchmarks/leave_one_out.py -o FOLDER [--recipe RECIPE] [--book NAME ...] [--data FOLDER] [--processes N]
                                       [--variant NAME ...] [--untuned] [--against FOLDER]

Books are the PDFs with questions beside them in DATA/textbooks, where DATA is ../shared/data or $MCQA_DATA. Each becomes a
course of its own, named like its file, in the application's data folder (some minutes at the first run), and its questions are
answered with the passages that a search of that course finds. The recipe's first stages that need no book are carried out once
for all; from the others, the held-out book's questions and course are taken out. Runs that were stopped go on where
they were.

Variants: passages (as the card says, in the fastest number format), none (without passages), three and five (so many passages),
int8, nf4, letter (asked for letters). --untuned measures the recipe's model as it comes. --against compares with what another
recipe gave, in the FOLDER of its run.

Prints Markdown: accuracy in % for each book and variant, the mean of the books and that of all questions with 95 % intervals,
the log loss and the expected calibration error; beside it, of the same questions, the difference in accuracy with McNemar's
exact test and that in log loss with its bootstrap interval, from the first variant, or from the same in the other folder. A
variant with the evidence of the course, and the evidence alone, is compared with the first that has it. The weight of the
model's scores (one over the temperature) and those of the evidence beside it are fitted on the other books; the weights
shown, and what they are in a model's card, on all.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

# Beside this script lie ingest.py and training.py, which Python would take for the packages of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
VARIANTS: dict[str, dict[str, Any]] = {
    "passages": {},
    "none": {"passages": 0},
    "three": {"passages": 3},
    "five": {"passages": 5},
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4"},
    "letter": {"scoring": "letter"},
}
BESIDE = " and evidence"  # what a variant's name ends in where the evidence of the course is weighed beside its scores
WITH_EVIDENCE = ("passages", "int8", "nf4")
ALONE = "evidence alone"  # what the course's text says without the model


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("smollm2-mcqa"))
    parser.add_argument("--book", action="append", help="default: all")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="default: passages and none")
    parser.add_argument("--untuned", action="store_true")
    parser.add_argument("--against", type=Path, help="the folder of another run")
    parser.add_argument("--processes", type=int, default=1, help="books at a time; each gets its share of the cores")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--answer", nargs=4, metavar=("BOOK", "MODEL", "VARIANT", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data: Path = arguments.data
    if arguments.answer:
        _answer(data, *arguments.answer)
        return 0
    from training.recipe import load_recipe

    books = sorted(pdf.stem for pdf in (data / "textbooks").glob("*.pdf") if pdf.with_suffix(".jsonl").exists())
    if not books:
        print(f"skipped: no textbooks with questions in {data}; name the folder with --data or MCQA_DATA")
        return 0
    chosen = arguments.book or books
    wanted = arguments.variant or ["passages", "none"]
    other = {book: arguments.against / book for book in chosen} if arguments.against else None
    # Said before hours of tuning, not after.
    needed = [folder / f"{book}-{name}.json" for book, folder in (other or {}).items() for name in wanted]
    missing = [str(file) for file in needed if not file.exists()]
    if missing:
        parser.error(f"--against: {missing[0]} is not there; run the other recipe with the same --book and --variant first")
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for book in books:
        _index(data, book)
    base = None if arguments.untuned else _shared(arguments.recipe, data, output, books)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(arguments.processes):
        slots.put(slot)

    def one(book: str) -> None:
        slot = slots.get()
        try:
            model = (
                load_recipe(arguments.recipe).model
                if arguments.untuned
                else _tuned(arguments.recipe, data, output, book, books, base, _cores(slot, arguments.processes))
            )
            for name in wanted:
                result = output / ("untuned" if arguments.untuned else book) / f"{book}-{name}.json"
                if not result.exists():
                    result.parent.mkdir(exist_ok=True)
                    parts = ["--data", str(data), "--answer", book, model, name, str(result)]
                    _start([sys.executable, __file__, "-o", str(output), *parts], _cores(slot, arguments.processes))
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(one, chosen))
    folder = {book: output / ("untuned" if arguments.untuned else book) for book in chosen}
    _tell(folder, wanted, other)
    return 0


def _cores(slot: int, processes: int) -> list[int]:
    """Return the cores that a process may use; two that share cores wait for each other after every product."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[slot::processes] or mine


def _start(command: Sequence[str], cores: Sequence[int]) -> None:
    threads = {"OMP_NUM_THREADS": str(len(cores))}
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if shutil.which("taskset") else []
    subprocess.run([*pinned, *command], check=True, env=os.environ | threads)


def _index(data: Path, book: str) -> None:
    """Make a book a course of its own."""
    from ingest.course import Course
    from ingest.home import home

    folder = home() / "benchmark-books" / book
    if not folder.exists():
        folder.mkdir(parents=True)
        shutil.copy(data / "textbooks" / f"{book}.pdf", folder)
    Course(book).sync(folder, wait=True)


def _shared(recipe: Path, data: Path, output: Path, books: Sequence[str]) -> str | None:
    """Carry out the stages that need no book; returns the model that they make, None where there are none."""
    from training.recipe import load_recipe

    loaded = load_recipe(recipe)
    first = _first_with_book(loaded, books)
    if first == 0:
        return None
    _run(_part(loaded, slice(first), data), data, output / "shared", None, _cores(0, 1))
    return str(output / "shared" / "model")


def _tuned(
    recipe: Path, data: Path, output: Path, book: str, books: Sequence[str], base: str | None, cores: Sequence[int]
) -> str:
    """Carry out the other stages without a book; returns the folder of the model."""
    from training.recipe import load_recipe

    loaded = load_recipe(recipe)
    _run(_part(loaded, slice(_first_with_book(loaded, books), None), data, book), data, output / book, base, cores)
    return str(output / book / "model")


def _part(recipe: Any, which: slice, data: Path, without: str | None = None) -> Any:
    """Return some stages of a recipe, without the questions and the course of one book."""
    from training.recipe import Questions, find

    def placed(row: Questions) -> Questions:
        """Name a file whole: some stand beside the recipe, of which another folder will hold a copy."""
        return row if row.file is None else row.model_copy(update={"file": find(recipe, row.file, data, row.origin).resolve()})

    stages = []
    for stage in recipe.stages[which]:
        for name in ("data", "held", "questions"):
            rows = getattr(stage, name, ())
            if any(isinstance(row, Questions) for row in rows):
                kept = [row for row in rows if without is None or without not in (row.course, row.file and row.file.stem)]
                stage = stage.model_copy(update={name: tuple(placed(row) for row in kept)})
        stages.append(stage)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _first_with_book(recipe: Any, books: Sequence[str]) -> int:
    for number, stage in enumerate(recipe.stages):
        rows = (*getattr(stage, "data", ()), *getattr(stage, "questions", ()))
        if any(getattr(row, "course", None) in books for row in rows):
            return number
    return len(recipe.stages)


def _run(recipe: Any, data: Path, folder: Path, model: str | None, cores: Sequence[int]) -> None:
    import yaml

    if (folder / "done").exists():
        return
    file = folder.with_name(f"{folder.name}.yaml")
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "training.cli", "run", str(file), "--data", str(data), "-o", str(folder)]
    resume = ["--resume"] if (folder / "run.json").exists() else []
    _start([*command, *(["--model", model] if model else []), *resume], cores)
    (folder / "done").touch()


def _answer(data: Path, book: str, model: str, name: str, result: str) -> None:
    """Answer a book's questions with one variant, and keep what the answers are made of."""
    from assistant.answer import TOGETHER, Answer, Assistant
    from assistant.items import read_items
    from assistant.model import load_model
    from ingest.course import Course

    how = dict(VARIANTS[name])
    lm = load_model(model, quantize=how.pop("quantize", "none"))
    assistant = Assistant(lm, Course.open(book), **how)
    mcqs = [item.mcq for item in read_items(data / "textbooks" / f"{book}.jsonl").items]
    rows = []
    for start in range(0, len(mcqs), TOGETHER):
        block = mcqs[start : start + TOGETHER]
        for mcq, answer in zip(block, assistant.answer_many(block, evidence=name in WITH_EVIDENCE), strict=True):
            asked = {"id": mcq.id, "key": mcq.answer}
            if isinstance(answer, Answer):
                rows.append({**asked, "seconds": answer.seconds, **asdict(answer.parts)})
            else:
                rows.append({**asked, "seconds": 0.0, "error": str(answer)})
    Path(result).write_text(json.dumps(rows), encoding="utf-8")


Rows = list[dict[str, Any]]


def _tell(folder: Mapping[str, Path], wanted: Sequence[str], other: Mapping[str, Path] | None) -> None:
    import numpy as np

    from assistant import stats
    from assistant.report import table
    from training import bootstrap

    judged = _all_judged(folder, wanted)
    before = _all_judged(other, wanted) if other else {}
    first = wanted[0]
    rows = []
    for name, one in judged.items():
        reference = first + BESIDE if name.endswith((BESIDE, ALONE)) and first + BESIDE in judged else first
        than = before[name] if other else judged[reference]
        shares = [sum(right) / len(right) for right in one.books.values()]
        mean = sum(shares) / len(shares)
        # The normal interval of a mean of independent shares: a small book counts as much as a large one.
        variance = sum(share * (1 - share) / len(right) for share, right in zip(shares, one.books.values(), strict=True))
        reach = 1.96 * math.sqrt(variance) / len(shares)
        gained = sum(b and not a for a, b in zip(than.right, one.right, strict=True))
        lost = sum(a and not b for a, b in zip(than.right, one.right, strict=True))
        low, high = stats.paired_difference(gained, lost, len(one.right))
        points = f"{100 * (gained - lost) / len(one.right):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        error, _ = stats.expected_calibration_error(one.sure, one.right)
        around = stats.calibration_error_interval(one.sure, one.right)
        more = bootstrap.mean(np.log(than.of_key) - np.log(one.of_key), list(map(str, range(len(one.right)))))
        rows.append([
            name, *(f"{100 * share:.1f}" for share in shares),
            f"{100 * mean:.1f} ({100 * (mean - reach):.1f}-{100 * (mean + reach):.1f})",
            stats.percent_with_interval(sum(one.right), len(one.right)),
            "" if than is one else f"{points}, p = {stats.mcnemar_exact(gained, lost):.3g}",
            f"{stats.negative_log_likelihood(one.of_key):.3f}" if len(folder) > 1 else "",
            "" if than is one or len(folder) < 2 else f"{more.value:+.3f} ({more.low:+.3f} to {more.high:+.3f})",
            f"{error:.3f} ({around[0]:.3f}-{around[1]:.3f})" if len(folder) > 1 else "",
            ", ".join(f"{weight:.3g}" for weight in one.weights),
            "" if name == ALONE else f"{sum(one.seconds) / len(one.seconds):.3f}",
        ])  # fmt: skip
    than_what = "the other run" if other else " or ".join(name for name in (first, first + BESIDE) if name in judged)
    head = ["variant", *folder, "mean of the books", "all questions", f"against {than_what}, points", "log loss, nats"]
    print(table([*head, "the same difference, nats", "calibration error", "weights", "s a question"], rows))
    if "passages" + BESIDE in judged:
        from assistant.calibrate import learnt
        from assistant.card import Card

        card = Card(**learnt(np.array(judged["passages" + BESIDE].weights)))
        print(f"\nFor the model's card: {card.model_dump_json(include={'temperature', 'evidence_weights'})}")


@dataclass(frozen=True)
class _Judged:
    """What a variant is worth: for each book which answers are right; for each question of all books, in order, how sure the
    answer was, how likely the right option, and how long it took; and the weights that fit all books."""

    books: dict[str, list[bool]]
    sure: list[float]
    of_key: list[float]
    seconds: list[float]
    weights: list[float]

    @property
    def right(self) -> list[bool]:
        return [one for right in self.books.values() for one in right]


def _all_judged(folder: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, _Judged]:
    found = {name: {book: _read(folder[book] / f"{book}-{name}.json") for book in folder} for name in wanted}
    judged = {name: _judged(found[name], evidence=False) for name in wanted}
    beside = [name for name in wanted if name in WITH_EVIDENCE and len(folder) > 1]
    judged |= {name + BESIDE: _judged(found[name]) for name in beside}
    if beside:
        judged[ALONE] = _judged(found[beside[0]], model=False)
    return judged


def _read(path: Path) -> Rows:
    rows: Rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        if "error" in row:
            print(f"{path.stem}: {row['id']}: {row['error']}", file=sys.stderr)
    return rows


def _judged(found: dict[str, Rows], *, model: bool = True, evidence: bool = True) -> _Judged:
    """Judge the answers to each book by weights that were fitted on the other books.

    An unanswered question is wrong, not sure, and no better than chance among four.
    """
    import numpy as np

    from assistant.answer import Parts
    from assistant.calibrate import features, fit

    def inputs(row: dict[str, Any]) -> Any:
        return features(Parts(row["model"], row["evidence"]), evidence)[:, 0 if model else 1 :]

    def known(books: Sequence[str]) -> tuple[list[Any], Any]:
        rows = [row for book in books for row in found[book] if "error" not in row]
        return [inputs(row) for row in rows], np.array(["ABCDEFGHIJ".index(row["key"]) for row in rows])

    judged = _Judged({}, [], [], [], [float(weight) for weight in fit(*known(list(found)))])
    for book, rows in found.items():
        weights = fit(*known([other for other in found if other != book or len(found) == 1]))
        right = judged.books[book] = []
        for row in rows:
            judged.seconds.append(row["seconds"])
            if "error" in row:
                right.append(False)
                judged.sure.append(0.0)
                judged.of_key.append(0.25)
                continue
            scores = inputs(row) @ weights
            powers = np.exp(scores - scores.max())
            key = "ABCDEFGHIJ".index(row["key"])
            right.append(int(scores.argmax()) == key)
            judged.sure.append(float(powers.max() / powers.sum()))
            judged.of_key.append(float(powers[key] / powers.sum()))
    return judged


if __name__ == "__main__":
    sys.exit(main())
