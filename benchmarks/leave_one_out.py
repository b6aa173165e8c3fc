"""A recipe judged on textbooks that it did not see: tuned on all but one of them, asked that one's questions, for each in turn.

    python benchmarks/leave_one_out.py -o FOLDER [--recipe RECIPE] [--book NAME ...] [--data FOLDER] [--processes N]
                                       [--variant NAME ...] [--untuned]

Books are the PDFs with questions beside them in DATA/textbooks, where DATA is ../shared/data or $MCQA_DATA. Each becomes a
course of its own, named like its file, in the application's data folder (some minutes at the first run), and its questions are
answered with the passages that a search of that course finds. The recipe's first stages that need no course are carried out
once for all books; from the others, the held-out book's questions and course are taken out. Runs that were stopped go on where
they were.

Variants: passages (as the card says, in the fastest number format), none (without passages), five (five passages), int8, nf4,
letter (asked for letters). --untuned measures the recipe's model as it comes.

Prints Markdown: accuracy in % with 95 % intervals for each book and variant, the mean over the books, McNemar's exact test
against the first variant on the same questions, and the expected calibration error at a temperature fitted on the other books.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

# Beside this script lie ingest.py and training.py, which Python would take for the packages of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
VARIANTS: dict[str, dict[str, Any]] = {
    "passages": {},
    "none": {"passages": 0},
    "five": {"passages": 5},
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4"},
    "letter": {"scoring": "letter"},
}


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("smollm2-mcqa"))
    parser.add_argument("--book", action="append", help="default: all")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="default: passages and none")
    parser.add_argument("--untuned", action="store_true")
    parser.add_argument("--processes", type=int, default=1, help="books at a time; each gets its share of the cores")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--answer", nargs=4, metavar=("BOOK", "MODEL", "VARIANT", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data: Path = arguments.data
    if arguments.answer:
        _answer(data, *arguments.answer)
        return 0
    books = sorted(pdf.stem for pdf in (data / "textbooks").glob("*.pdf") if pdf.with_suffix(".jsonl").exists())
    if not books:
        print(f"skipped: no textbooks with questions in {data}; name the folder with --data or MCQA_DATA")
        return 0
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for book in books:
        _index(data, book)
    wanted = arguments.variant or ["passages", "none"]
    base = None if arguments.untuned else _shared(arguments.recipe, data, output)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(arguments.processes):
        slots.put(slot)

    def one(book: str) -> None:
        slot = slots.get()
        try:
            model = (
                None
                if arguments.untuned
                else _tuned(arguments.recipe, data, output, book, base, _cores(slot, arguments.processes))
            )
            for name in wanted:
                result = output / ("untuned" if arguments.untuned else book) / f"{book}-{name}.json"
                if not result.exists():
                    result.parent.mkdir(exist_ok=True)
                    parts = ["--data", str(data), "--answer", book, str(model or ""), name, str(result)]
                    _start([sys.executable, __file__, "-o", str(output), *parts], _cores(slot, arguments.processes))
        finally:
            slots.put(slot)

    chosen = arguments.book or books
    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(one, chosen))
    _tell(output, chosen, wanted, untuned=arguments.untuned)
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
    Course(book).sync(folder)


def _shared(recipe: Path, data: Path, output: Path) -> str | None:
    """Carry out the stages that need no course; returns the model that they make, None where there are none."""
    from training.recipe import load_recipe

    loaded = load_recipe(recipe)
    first = _first_with_course(loaded)
    if first == 0:
        return None
    _run(loaded.model_copy(update={"stages": loaded.stages[:first]}), data, output / "shared", None, _cores(0, 1))
    return str(output / "shared" / "model")


def _tuned(recipe: Path, data: Path, output: Path, book: str, base: str | None, cores: Sequence[int]) -> str:
    """Carry out the other stages without a book; returns the folder of the model."""
    from training.recipe import Questions, load_recipe

    loaded = load_recipe(recipe)
    held = Questions(file=Path("textbooks") / f"{book}.jsonl", course=book)
    stages = []
    for stage in loaded.stages[_first_with_course(loaded) :]:
        for name in ("data", "questions"):
            rows = getattr(stage, name, ())
            if any(isinstance(row, Questions) for row in rows):
                kept = tuple(row for row in rows if row.course != book and (row.file is None or row.file.stem != book))
                stage = stage.model_copy(update={name: kept, "held": (held,)})
        stages.append(stage)
    _run(loaded.model_copy(update={"stages": tuple(stages)}), data, output / book, base, cores)
    return str(output / book / "model")


def _first_with_course(recipe: Any) -> int:
    for number, stage in enumerate(recipe.stages):
        rows = (*getattr(stage, "data", ()), *getattr(stage, "questions", ()))
        if any(getattr(row, "course", None) for row in rows):
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
    """Answer a book's questions with one variant, and keep the outcomes."""
    from assistant.evaluate import Variant, evaluate
    from assistant.items import read_items

    items = read_items(data / "textbooks" / f"{book}.jsonl").items
    found = evaluate(Variant(model or None, course=book, **VARIANTS[name]), items)
    rows = [asdict(outcome) for outcome in found.outcomes]
    Path(result).write_text(json.dumps({"outcomes": rows, "weight_bytes": found.weight_bytes}), encoding="utf-8")


def _tell(output: Path, books: Sequence[str], wanted: Sequence[str], *, untuned: bool) -> None:
    from assistant import stats
    from assistant.report import table

    found = {
        (book, name): json.loads((output / ("untuned" if untuned else book) / f"{book}-{name}.json").read_text())["outcomes"]
        for book in books
        for name in wanted
    }
    right = {key: [row["letter"] == row["key"] for row in rows] for key, rows in found.items()}
    rows = []
    for name in wanted:
        shares = [sum(right[book, name]) / len(right[book, name]) for book in books]
        all_right = [one for book in books for one in right[book, name]]
        cells = [f"{100 * share:.1f}" for share in shares]
        pooled = stats.percent_with_interval(sum(all_right), len(all_right))
        test = ""
        if name != wanted[0]:
            first = [one for book in books for one in right[book, wanted[0]]]
            gained = sum(b and not a for a, b in zip(first, all_right, strict=True))
            lost = sum(a and not b for a, b in zip(first, all_right, strict=True))
            low, high = stats.paired_difference(gained, lost, len(first))
            p = stats.mcnemar_exact(gained, lost)
            test = f"{100 * (gained - lost) / len(first):+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), p = {p:.3g}"
        seconds = sum(row["seconds"] for book in books for row in found[book, name]) / len(all_right)
        mean = f"{100 * sum(shares) / len(shares):.1f}"
        rows.append([name, *cells, mean, pooled, test, _calibration(books, name, found), f"{seconds:.3f}"])
    head = [
        "variant",
        *books,
        "mean of the books",
        "all questions",
        f"against {wanted[0]}, points",
        "calibration error",
        "s a question",
    ]
    print(table(head, rows))


def _calibration(books: Sequence[str], name: str, found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Return the calibration error where each book's temperature is fitted on the others, and the temperature of all."""
    import numpy as np

    from assistant import stats
    from assistant.calibrate import fit

    def features(of: Sequence[str]) -> tuple[list[Any], Any]:
        rows = [row for book in of for row in found[book, name] if row["letter"]]
        logs = [np.log(np.maximum(np.array(row["probabilities"], dtype=float), 1e-9))[:, None] for row in rows]
        return logs, np.array(["ABCDEFGHIJ".index(row["key"]) for row in rows])

    if len(books) < 2:
        return ""
    confidences: list[float] = []
    correct: list[bool] = []
    for book in books:
        weight = float(fit(*features([other for other in books if other != book]))[0])
        logs, keys = features([book])
        for row, key in zip(logs, keys, strict=True):
            powers = np.exp(weight * (row[:, 0] - row[:, 0].max()))
            confidences.append(float((powers / powers.sum()).max()))
            correct.append(int(row[:, 0].argmax()) == key)
    error, _ = stats.expected_calibration_error(confidences, correct)
    low, high = stats.calibration_error_interval(confidences, correct)
    return f"{error:.3f} ({low:.3f}-{high:.3f}), T = {1 / float(fit(*features(books))[0]):.2f}"


if __name__ == "__main__":
    sys.exit(main())
