"""What speaks for an option beside the model: the course's evidence, and how question and options are put."""

import re
from collections.abc import Mapping

from assistant.card import EVIDENCE, EvidenceKind
from assistant.mcq import MCQ
from ingest.course import Course

Kinds = Mapping[EvidenceKind, tuple[float, ...]]
# "All of the above", "Both A and B", "None of these answers": no passage says it.
_SUMS_UP = re.compile(
    r"^\W*(?:all|both|none|neither|any)\b.*\b(?:above|these|answers|choices|options|[a-j] (?:and|nor) [a-j])\b|^all of the\b",
    re.IGNORECASE,
)


def zeros(mcq: MCQ) -> Kinds:
    """Return the evidence of a course that holds nothing about a question."""
    return {kind: (0.0,) * len(mcq.options) for kind in EVIDENCE}


def gather(course: Course, mcq: MCQ) -> Kinds:
    """Return the evidence of each kind, one number for each option of `mcq`."""
    found = course.evidence(mcq.question, mcq.options)
    return {
        "passage": found.passage,
        "sentence": found.sentence,
        "nearby": found.nearby,
        "sums_up": tuple(float(bool(_SUMS_UP.search(option))) for option in mcq.options),
    }
