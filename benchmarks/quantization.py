"""The model in every number format on the same questions: accuracy, size and speed in one table.

    python benchmarks/quantization.py [--set NAME ...] [--limit N] [--format NAME ...] [--model MODEL]
                                      [--course NAME] [--data FOLDER]

Sets: mmlu (FOLDER/mcqa/mmlu, 0-shot), arc (ARC-Easy validation), openbookqa (dev), and textbooks: the review questions of every
book in FOLDER/textbooks, with passages from all of its books' PDFs, indexed at the first run (some minutes). FOLDER is
../shared/data or $MCQA_DATA; a set whose data is missing is skipped. --limit takes at most N questions of a set, from all
subjects in turn. Each format runs in a process of its own, one after the other.

Prints Markdown; accuracy in % with 95 % intervals, and McNemar's exact test against the first format.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# Beside this script lies ingest.py, which Python would take for the package of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
FORMATS = {
    "fp32": ("fp32", "none"),
    "bf16": ("bf16", "none"),
    "int8": ("auto", "int8"),
    "nf4": ("auto", "nf4"),
    "int8-dynamic": ("auto", "int8-dynamic"),
}
SETS = ("mmlu", "arc", "openbookqa", "textbooks")
COURSE = "benchmark-textbooks"


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=SETS, help="default: all")
    parser.add_argument("--format", action="append", choices=list(FORMATS), help="default: all; the first is the baseline")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--model", default=None)
    parser.add_argument("--course", default=None, metavar="NAME", help="an index of the textbooks that is there already")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    arguments = parser.parse_args()

    from assistant import report
    from assistant.evaluate import Variant, compare, evaluate_apart
    from assistant.items import Item, read_items

    print("| set | n | format | accuracy, % | gain | p | calibration error | s a question | tokens | weights, MB | peak, MB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.set or SETS:
        files = _files(name, arguments.data)
        if not all(file.exists() for file in files) or not files:
            print(f"skipped: {name}: no questions in {arguments.data}; name the folder with --data or MCQA_DATA")
            continue
        items: list[Item] = []
        for file in files:
            share = None if arguments.limit is None else max(1, arguments.limit // len(files))
            items += read_items(file, limit=share).items
        course = (arguments.course or _course(arguments.data)) if name == "textbooks" else None
        results = []
        for key in arguments.format or FORMATS:
            dtype, quantize = FORMATS[key]
            variant = Variant(arguments.model, quantize, course, dtype=dtype)  # type: ignore[arg-type]
            results.append(evaluate_apart(variant, items))
            print(f"{name}, {key}: {results[-1].seconds_to_load:.0f} s to load", file=sys.stderr)
        found = compare(results)
        for key, summary in zip(arguments.format or FORMATS, found.summaries, strict=True):
            print(
                f"| {name} | {found.n} | {key} | {report.percent(summary.correct, found.n)} | {report.gain(summary, found.n)} "
                f"| {report.p_value(summary)} | {summary.calibration_error:.3f} | {summary.seconds:.3f} | {summary.tokens:.0f} "
                f"| {report.megabytes(summary.result.weight_bytes)} | {report.megabytes(summary.result.peak_bytes)} |",
                flush=True,
            )
    return 0


def _files(name: str, data: Path) -> list[Path]:
    if name == "textbooks":
        return sorted(file for file in (data / "textbooks").glob("*.jsonl") if not file.name.endswith(".sections.jsonl"))
    folder = data / "mcqa"
    return [
        folder / {"mmlu": "mmlu", "arc": "arc/arc_easy_validation.json", "openbookqa": "openbookqa/dev_complete.jsonl"}[name]
    ]


def _course(data: Path) -> str:
    """Index the textbooks, once, beside the user's courses; returns the course's name."""
    from ingest.course import Course
    from ingest.home import home

    folder = home() / "benchmark-textbooks"
    if not folder.exists():
        folder.mkdir(parents=True)
        for pdf in (data / "textbooks").glob("*.pdf"):
            shutil.copy(pdf, folder)
    Course(COURSE).sync(folder)
    return COURSE


if __name__ == "__main__":
    sys.exit(main())
