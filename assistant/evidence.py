"""What speaks for an option beside the model: the course's evidence, and how question and options are put."""

import re
from collections.abc import Mapping
from typing import get_args

from assistant.card import EvidenceKind
from assistant.mcq import MCQ
from ingest.course import Course

Kinds = Mapping[EvidenceKind, tuple[float, ...]]
# "Which is NOT ...", "All of these EXCEPT ...": what the course says most about is then wrong.
_NEGATION = re.compile(r"\b(?:not|except|(?<!at )least|false|incorrect)\b|n['’]t\b", re.IGNORECASE)
# "All of the above", "Both A and B", "None of these answers": no passage says it.
_SUMS_UP = re.compile(
    r"^\W*(?:all|both|none|neither|any)\b.*\b(?:above|these|answers|choices|options|[a-j] (?:and|nor) [a-j])\b|^all of the\b",
    re.IGNORECASE,
)


def is_negated(question: str) -> bool:
    """Say whether a question asks for what is not so."""
    return bool(_NEGATION.search(question))


def zeros(mcq: MCQ) -> Kinds:
    """Return the evidence of a course that holds nothing about a question."""
    return {kind: (0.0,) * len(mcq.options) for kind in get_args(EvidenceKind)}


def gather(course: Course, mcq: MCQ) -> Kinds:
    """Return the evidence of each kind, one number for each option of `mcq`."""
    found = course.evidence(mcq.question, mcq.options)
    return {
        "passage": found.passage,
        "sentence": found.sentence,
        "nearby": found.nearby,
        "sums_up": tuple(float(bool(_SUMS_UP.search(option))) for option in mcq.options),
    }
