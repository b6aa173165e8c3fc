"""What speaks for an option beside the model: the course's evidence, and how question and options are put."""

import re
from collections.abc import Mapping

from assistant.card import EVIDENCE, EvidenceKind
from assistant.mcq import MCQ
from assistant.negation import plain
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
    """Return the evidence of each kind, one number for each option of `mcq`.

    Where the question asks for what is not so, what the course says speaks against an option, and is negative.
    """
    found = course.evidence(mcq.question, mcq.options)
    sign = 1.0 if plain(mcq.question) is None else -1.0
    return {
        "passage": tuple(sign * value for value in found.passage),
        "statement": tuple(sign * value for value in found.statement),
        "sentence": tuple(sign * value for value in found.sentence),
        "nearby": tuple(sign * value for value in found.nearby),
        "sums_up": tuple(float(bool(_SUMS_UP.search(option))) for option in mcq.options),
    }
