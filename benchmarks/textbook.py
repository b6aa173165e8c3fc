"""Index a textbook and answer its own questions, with and without retrieval, by letter and by cloze.

    python benchmarks/textbook.py [--book NAME] [--data FOLDER] [--model MODEL] [--limit N] [--run cloze:3 ...]
                                  [--passage-tokens N --overlap-tokens N] [--normalization sum|token|byte] [--temperature T]

FOLDER/textbooks/NAME.pdf and NAME.jsonl are read (default: introduction-sociology below ../shared/data or $MCQA_DATA).
Prints Markdown: indexing speed and memory, then accuracy with its 95 % interval, calibration error, and seconds a question.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Beside this script lies ingest.py, which Python would take for the package of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

RUNS = ["cloze:3", "cloze:0", "letter:3", "letter:0"]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--book", default="introduction-sociology")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or root.parent / "shared" / "data"))
    parser.add_argument("--model", default=None)
    parser.add_argument("--limit", type=int, default=None, help="only the first N questions")
    parser.add_argument("--run", action="append", help="scoring:passages, as in cloze:3; may be repeated")
    parser.add_argument("--passage-tokens", type=int, default=None)
    parser.add_argument("--overlap-tokens", type=int, default=None)
    parser.add_argument("--normalization", choices=["sum", "token", "byte"], default=None)
    parser.add_argument("--temperature", type=float, default=None)
    arguments = parser.parse_args()
    pdf, questions = (arguments.data / "textbooks" / f"{arguments.book}{suffix}" for suffix in (".pdf", ".jsonl"))
    if not pdf.is_file() or not questions.is_file():
        print(f"skipped: {pdf} and its questions are not here; name their folder with --data or MCQA_DATA")
        return 0

    from assistant.answer import Answer, Assistant
    from assistant.formats import read_mcqs
    from assistant.model import load_model
    from assistant.stats import expected_calibration_error, percent_with_interval
    from ingest.chunk import SplitSettings
    from ingest.course import Course

    mcqs = [row.mcq for row in read_mcqs(questions) if row.mcq][: arguments.limit]
    lm = load_model(arguments.model)
    lm.card = lm.card.model_copy(update=_given(arguments, "normalization", "temperature"))
    settings = SplitSettings(**_given(arguments, "passage_tokens", "overlap_tokens"))
    with tempfile.TemporaryDirectory() as home:
        os.environ["MCQA_HOME"] = home  # a new index, whatever the user has
        folder = Path(home) / "book"
        folder.mkdir()
        shutil.copy(pdf, folder)
        course = Course("book", settings=settings)
        course.warm_up()
        before = _peak_memory()
        report = course.sync(folder)
        print(f"## {arguments.book}, {lm.name}\n")
        print(
            f"Indexed {report.pages} pages into {report.passages} passages in {report.seconds:.1f} s: "
            f"{report.pages / report.seconds:.1f} pages/s, {report.passages / report.seconds:.0f} passages/s; "
            f"peak memory {_peak_memory():.1f} GiB ({before:.1f} GiB with the models loaded). "
            f"A second sync took {course.sync(folder).seconds:.3f} s.\n"
        )
        print("| scoring | passages | accuracy | calibration error (10 bins) | mean letter mass | s a question, median | p95 |")
        print("|---|---|---|---|---|---|---|")
        for run in arguments.run or RUNS:
            scoring, passages = run.split(":")[0], int(run.split(":")[1])
            assistant = Assistant(lm, course if passages else None, scoring=scoring, passages=passages)  # type: ignore[arg-type]
            answers: list[Answer] = []
            started = time.perf_counter()
            for mcq in mcqs:
                answers.append(assistant.answer(mcq))
                if sys.stderr.isatty():
                    print(f"\r{scoring} {passages}: {len(answers)}/{len(mcqs)}", end="", file=sys.stderr)
            seconds = sorted(answer.seconds for answer in answers)
            right = [answer.letter == answer.mcq.answer for answer in answers]
            error, _ = expected_calibration_error([max(answer.probabilities) for answer in answers], right)
            masses = [answer.letter_mass for answer in answers if answer.letter_mass is not None]
            print(
                f"| {scoring} | {passages} | {percent_with_interval(sum(right), len(answers))} "
                f"| {error:.3f} | {f'{statistics.mean(masses):.2f}' if masses else ''} "
                f"| {statistics.median(seconds):.3f} | {seconds[int(0.95 * len(seconds))]:.3f} |",
                flush=True,
            )
            print(f"{scoring} {passages}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        print(f"\nPeak memory of the whole run: {_peak_memory():.1f} GiB.")
    return 0


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())
