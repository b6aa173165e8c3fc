"""What speaks for an option beside the model: the course's evidence, and how question and options are put."""

import re
from collections.abc import Mapping, Sequence

from assistant.card import EVIDENCE, EvidenceKind
from assistant.mcq import MCQ
from assistant.negation import plain
from ingest.course import Course

Kinds = Mapping[EvidenceKind, tuple[float, ...]]
# "All of the above", "Both A and B", "None of these answers": no passage says it.
_SUMS_UP = re.compile(
    r"^\W*(?:all|both|none|neither|any)\b"
    r"(?:[^,;:]{0,25}\b(?:above|these|them|answers|choices|options)\b|\W+[a-j1-9]\W*(?:\b(?:and|nor|or)\b|&)\W*[a-j1-9]\b)",
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


def columns(own: Sequence[float], evidence: Kinds) -> list[tuple[float, ...]]:
    """Return what options' scores are weighed from: the model's `own` scores, then each kind of evidence, in EVIDENCE's order.

    No text speaks for the words of an option that sums up others, so it stands at the mean of the others in all but
    "sums_up", and how common such words are says nothing for it or against it.
    """
    sums_up = evidence["sums_up"]
    return [
        _leveled(own, sums_up),
        *(evidence[kind] if kind == "sums_up" else _leveled(evidence[kind], sums_up) for kind in EVIDENCE),
    ]


def _leveled(values: Sequence[float], sums_up: Sequence[float]) -> tuple[float, ...]:
    others = [value for value, sums in zip(values, sums_up, strict=True) if not sums]
    if not others or len(others) == len(values):
        return tuple(values)
    mean = sum(others) / len(others)
    return tuple(mean if sums else value for value, sums in zip(values, sums_up, strict=True))
