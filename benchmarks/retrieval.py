"""How often the page that holds an answer is among the first passages, on the sample courses.

    python benchmarks/retrieval.py

Prints Markdown: page recall at 1, 3 and 5 with its 95 % interval, for every search method, searching for the question alone and
for the question with its options. Needs no network and no other data; the courses are indexed into a temporary folder.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


def main() -> int:
    """Run the benchmark; returns the exit status."""
    from assistant.stats import percent_with_interval
    from ingest.course import Course
    from ingest.search import METHODS

    with tempfile.TemporaryDirectory() as home:
        os.environ["MCQA_HOME"] = home
        questions = []
        for file in sorted(CORPUS.glob("*/questions.jsonl")):
            course = Course(file.parent.name)
            course.sync(file.parent)
            questions += [(course, json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        print("| method | query | recall@1 | recall@3 | recall@5 |")
        print("|---|---|---|---|---|")
        for method in METHODS:
            for query in ("question and options", "question"):
                cells = []
                for limit in (1, 3, 5):
                    found = 0
                    for course, record in questions:
                        parts = [record["question"], *(record["choices"] if "options" in query else [])]
                        hits = course.search("\n".join(parts), limit, method=method)
                        found += any(
                            hit.passage.document == record["document"]
                            and hit.passage.page_first <= record["page"] <= hit.passage.page_last
                            for hit in hits
                        )
                    cells.append(percent_with_interval(found, len(questions)))
                print(f"| {method} | {query} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
