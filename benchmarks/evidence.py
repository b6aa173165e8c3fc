"""How far a course's own text goes without any language model: textbooks' questions answered by the evidence of retrieval.

    python benchmarks/evidence.py [--data FOLDER]

Books are the PDFs with questions beside them in DATA/textbooks (default: ../shared/data or $MCQA_DATA). Each becomes a course
of its own, named like its file, in the application's data folder. Prints Markdown: accuracy in % for each kind of evidence
alone (assistant.evidence) and for all together; the weights by which a book is judged were fitted on the others. Last, the
seconds that gathering takes.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

# Beside this script lie ingest.py and training.py, which Python would take for the packages of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the benchmark; returns the exit status."""
    from assistant.answer import Parts
    from assistant.calibrate import features, fit
    from assistant.card import EVIDENCE
    from assistant.evidence import gather
    from assistant.items import read_items
    from assistant.report import table
    from assistant.stats import percent_with_interval
    from ingest.course import Course
    from ingest.home import home

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    data: Path = parser.parse_args().data
    books = sorted(pdf for pdf in (data / "textbooks").glob("*.pdf") if pdf.with_suffix(".jsonl").exists())
    if not books:
        print(f"skipped: no textbooks with questions in {data}; name the folder with --data or MCQA_DATA")
        return 0
    asked: dict[str, list[tuple[Parts, int]]] = {}
    seconds: list[float] = []
    for pdf in books:
        folder = home() / "benchmark-books" / pdf.stem
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.copy(pdf, folder)
        course = Course(pdf.stem)
        course.sync(folder, wait=True)
        course.warm_up()
        asked[pdf.stem] = []
        for mcq in (item.mcq for item in read_items(pdf.with_suffix(".jsonl")).items):
            started = time.perf_counter()
            parts = Parts((0.0,) * len(mcq.options), gather(course, mcq))  # a model that knows nothing
            seconds.append(time.perf_counter() - started)
            asked[pdf.stem].append((parts, mcq.answer_index))
    ways: dict[str, list[int]] = {kind: [0, place] for place, kind in enumerate(EVIDENCE, start=1)}
    ways["all together"] = list(range(len(EVIDENCE) + 1))
    rows = []
    for name, columns in ways.items():
        inputs = {book: [features(parts)[:, columns] for parts, _ in of_book] for book, of_book in asked.items()}
        right = {}
        for book, of_book in asked.items():
            others = [other for other in asked if other != book]
            keys = np.array([key for other in others for _, key in asked[other]])
            weights = fit([row for other in others for row in inputs[other]], keys)
            right[book] = sum(int((row @ weights).argmax()) == key for row, (_, key) in zip(inputs[book], of_book, strict=True))
        shares = [right[book] / len(asked[book]) for book in asked]
        total = percent_with_interval(sum(right.values()), len(seconds))
        rows.append([name, *(f"{100 * share:.1f}" for share in shares), f"{100 * np.mean(shares):.1f}", total])
    print(table(["evidence", *asked, "mean of the books", "all questions"], rows))
    print(f"\n{sum(seconds) / len(seconds):.3f} s a question")
    return 0


if __name__ == "__main__":
    sys.exit(main())
