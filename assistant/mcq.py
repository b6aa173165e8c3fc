"""The MCQ record, and a question as a student pastes it → MCQ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.errors import UserError

LETTERS = "ABCDEFGHIJ"
MAX_OPTIONS = len(LETTERS)


class QuestionError(UserError):
    """A question that cannot be answered as it stands; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class MCQ:
    """A question with 2 to 10 options, lettered A, B, ... in their order, and its key where it is known.

    Raises QuestionError on an empty question, a wrong number of options, an empty option or a key beyond the options.
    """

    question: str
    options: tuple[str, ...]
    answer: str | None = None
    id: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise QuestionError("the question is empty; write it before its options")
        if not 2 <= len(self.options) <= MAX_OPTIONS:
            count = {0: "no options", 1: "only one option"}.get(len(self.options), f"{len(self.options)} options")
            raise QuestionError(f"a question needs 2 to {MAX_OPTIONS} options, this one has {count}")
        for letter, option in zip(LETTERS, self.options, strict=False):
            if not option.strip():
                raise QuestionError(f"option {letter} is empty; give it a text or leave it out")
        if self.answer is not None and self.answer not in self.letters:
            raise QuestionError(f"the key is '{self.answer}', but the options are {self.letters[0]} to {self.letters[-1]}")

    @property
    def letters(self) -> str:
        """The letters of the options, as in "ABCD"."""
        return LETTERS[: len(self.options)]


# A label at the start of an option: "A." "A)" "(A)" "A:" "[A]", with lower-case letters or numbers as well.
_MARKER = re.compile(r"(?<!\S)(?:\((\w{1,2})\)|\[(\w{1,2})\]|(\w{1,2})[.):])(?=\s|$)")
_LINE_START = re.compile(r"[ \t]*(?:[-*•]\s+)?$")
_LOOSE_BULLET = re.compile(r"\n[ \t]*[-*•]\s*$")  # the bullet before the next option's label
_SERIES = ("ABCDEFGHIJ", "abcdefghij", ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10"))
_STEM_HEAD = re.compile(r"^\s*(?:(?:question|q)\s*\d*\s*[:.)]\s*|\d{1,3}\s*[.)]\s+)", re.IGNORECASE)
_STEM_TAIL = re.compile(r"\s*(?:answer\s+)?(?:options|choices)\s*:\s*$", re.IGNORECASE)
_KEY = re.compile(
    r"\s*(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|solution|key)\s*(?:is\s*)?:?\s*[(\[]?([A-Ja-j]|10|[1-9])?[)\].]?\s*$",
    re.IGNORECASE,
)


def parse_question(text: str) -> MCQ:
    """Parse a pasted question: its stem, then options labeled "A.", "A)", "(a)", "1." and the like.

    Options stand one to a line, or run on in one line, with or without "Question:", "Options:" and "Answer:" around them.
    A letter after "Answer:" becomes the key. Raises QuestionError that says what is missing.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise QuestionError("the question is empty; paste it with its options, as in 'What is 2 + 2? A. 3 B. 4'")
    body, key = _split_key(text)
    run = _find_options(body)
    if not run:
        raise QuestionError("no options found; label them, as in 'What is 2 + 2? A. 3 B. 4', or one to a line")
    stem = _STEM_TAIL.sub("", body[: run[0].start()])
    ends = [marker.start() for marker in run[1:]] + [len(body)]
    options = [_tidy(body[marker.end() : end]) for marker, end in zip(run, ends, strict=True)]
    labels = [_label(marker) for marker in run]
    answer = letter_of_label(key, labels) if key else None
    # A stem keeps its lines, which may be code or a list of statements; an option is one line.
    stem = "\n".join(line.rstrip() for line in _STEM_HEAD.sub("", _LOOSE_BULLET.sub("", stem)).strip().split("\n"))
    return MCQ(stem, tuple(options), answer)


def letter_of_label(label: str, labels: Sequence[str]) -> str:
    """Return the letter of the option labeled `label` among `labels`; raises QuestionError where there is none."""
    wanted = label.strip().strip("().[]:").upper()
    for letter, known in zip(LETTERS, labels, strict=False):
        if known.upper() == wanted:
            return letter
    raise QuestionError(f"the key is '{label}', but the options are labeled {', '.join(labels)}")


def _split_key(text: str) -> tuple[str, str | None]:
    """Cut "Answer:" or "Answer: B" off the end of `text`; returns the rest and the key."""
    head, newline, last = text.rpartition("\n")
    if newline and (match := _KEY.fullmatch(last)):
        return head.rstrip(), match[1]
    inline = re.search(r"(?<=\s)(?:correct\s+)?answer:\s*([A-Ja-j]|10|[1-9])?\s*$", text, re.IGNORECASE)
    return (text[: inline.start()].rstrip(), inline[1]) if inline else (text, None)


def _label(marker: re.Match[str]) -> str:
    return marker[1] or marker[2] or marker[3]


def _style(marker: re.Match[str]) -> str:
    return marker[0].replace(_label(marker), "", 1)


def _find_options(text: str) -> list[re.Match[str]]:
    """Return the markers of the options: the longest run A, B, C, ... in one style.

    Markers at the start of a line are believed before others, letters before numbers (which may number statements in
    the stem), and the later of two equal runs before the earlier (which may number the question itself).
    """
    markers = list(_MARKER.finditer(text))
    at_line_start = [m for m in markers if _LINE_START.match(text[text.rfind("\n", 0, m.start()) + 1 : m.start()])]
    single: list[re.Match[str]] = []
    for candidates in (at_line_start, markers):
        for series in _SERIES:
            run = _longest_run(candidates, series)
            if len(run) >= 2:
                _refuse_gap(candidates, run, series)
                return run
            single = single or run
    return single


def _longest_run(markers: list[re.Match[str]], series: Sequence[str]) -> list[re.Match[str]]:
    best: list[re.Match[str]] = []
    for index, first in enumerate(markers):
        if _label(first) != series[0]:
            continue
        run = [first]
        for marker in markers[index + 1 :]:
            if len(run) < len(series) and _label(marker) == series[len(run)] and _style(marker) == _style(first):
                run.append(marker)
        if len(run) >= len(best):
            best = run
    return best


def _refuse_gap(markers: list[re.Match[str]], run: list[re.Match[str]], series: Sequence[str]) -> None:
    """Raise QuestionError where the labels skip one or go on past the tenth, rather than lose an option silently."""
    after = [m for m in markers if m.start() > run[-1].start() and _style(m) == _style(run[0])]
    known = [*series, *("KLMN" if series[0] == "A" else "klmn" if series[0] == "a" else ("11", "12", "13"))]
    for previous, marker in pairwise([run[-1], *after]):
        if _label(marker) in known[len(run) :]:
            if len(run) == MAX_OPTIONS:
                raise QuestionError(f"a question needs 2 to {MAX_OPTIONS} options, this one has more")
            raise QuestionError(f"option {_label(marker)} follows {_label(previous)}; option {series[len(run)]} is missing")


def _tidy(text: str) -> str:
    return " ".join(_LOOSE_BULLET.sub("", text).split())
