"""The MCQ record, and a question as a student pastes it → MCQ."""

import re
import unicodedata
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

    Raises QuestionError on an empty question, a wrong number of options, an empty option, a key beyond the options or
    characters that no text has (bytes that were not UTF-8, or half of a surrogate pair).
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
        try:
            "".join((self.question, *self.options)).encode()
        except UnicodeEncodeError:
            raise QuestionError("the question holds characters that are no valid text; save it as UTF-8") from None
        if self.answer is not None and self.answer not in self.letters:
            raise QuestionError(f"the key is '{self.answer}', but the options are {self.letters[0]} to {self.letters[-1]}")

    @property
    def letters(self) -> str:
        """The letters of the options, as in "ABCD"."""
        return LETTERS[: len(self.options)]

    @property
    def answer_index(self) -> int:
        """The place of the key among the options, from 0; raises QuestionError where the question has no key."""
        if self.answer is None:
            raise QuestionError(f"the question '{self.question}' has no key; give it its 'answer'")
        return LETTERS.index(self.answer)


NUMBERS = tuple(str(number) for number in range(1, MAX_OPTIONS + 1))
_OTHER_ALPHABETS = ("АБВГДЕЖЗИК", "абвгдежзик", "ΑΒΓΔΕΖΗΘΙΚ", "αβγδεζηθικ")
_SERIES: tuple[Sequence[str], ...] = (LETTERS, LETTERS.lower(), NUMBERS, *_OTHER_ALPHABETS)
_AFTER_THE_TENTH = {"A": "KLMN", "a": "klmn", "1": ("11", "12", "13")}

# Cyrillic and Greek letters that look like Latin ones: typed on the wrong keyboard, or read so by OCR.
_LOOK_ALIKES = str.maketrans("АВСЕНІЈасеіјԁһΑΒΕΗΙαι", "ABCEHIJaceijdhABEHIai")
# Those that do not. One among the labels, and all are of that alphabet, in which what looks like B may be the third letter.
_UNLIKE = {letter for series in _OTHER_ALPHABETS for letter in series if ord(letter) not in _LOOK_ALIKES}

_ENCLOSED = "①-⑩⑴-⑽⒈-⒑⒜-⒥Ⓐ-Ⓙⓐ-ⓙ🄐-🄙🄰-🄹"
# A label at the start of an option: "A." "A)" "(A)" "A:" "[A]", with lower-case letters or numbers as well; full-width
# forms and enclosed letters, which need no space after them.
_MARKER = re.compile(
    r"(?<!\S)(?:(?:\(\w{1,2}\)|\[\w{1,2}\]|\w{1,2}[.):])(?=\s|$)"
    rf"|（\w{{1,2}}）|【\w{{1,2}}】|\w{{1,2}}[．）：、]|[{_ENCLOSED}][.):]?)"
)
_AROUND = "()[]【】.:、"  # what may stand around a label once full-width forms are folded
_LINE_START = re.compile(r"[ \t]*(?:[-*•]\s+)?$")
_LOOSE_BULLET = re.compile(r"\n[ \t]*[-*•]\s*$")  # the bullet before the next option's label
_STEM_HEAD = re.compile(r"^\s*(?:(?:question|q)\s*\d*\s*[:.)]\s*|\d{1,3}\s*[.)]\s+)", re.IGNORECASE)
_STEM_TAIL = re.compile(r"\s*(?:answer\s+)?(?:options|choices)\s*:\s*$", re.IGNORECASE)
_LABEL = rf"10|[1-9A-JＡ-Ｊ１-９{''.join(_OTHER_ALPHABETS)}{''.join(map(chr, _LOOK_ALIKES))}{_ENCLOSED}]"
_KEY = re.compile(
    r"\s*(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|solution|key)\s*(?:is\s*)?[:：]?"
    rf"\s*[(\[（]?({_LABEL})?[)\]）.．]?\s*$",
    re.IGNORECASE,
)
_INLINE_KEY = re.compile(rf"(?<=\s)(?:correct\s+)?answer:\s*({_LABEL})?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Marker:
    """A label where it stands in a text, and how it is written, as in "(x)" for "(a)" and "（ａ）"."""

    start: int
    end: int
    label: str
    style: str


def parse_question(text: str, key: str | None = None) -> MCQ:
    """Parse a pasted question: its stem, then options labeled "A.", "A)", "(a)", "1.", "Ⓐ", "Ａ．" and the like.

    Options stand one to a line, or run on in one line, with or without "Question:", "Options:" and "Answer:" around them.
    The label after "Answer:" becomes the key, or `key`, a label as well, where that is known from elsewhere. Raises
    QuestionError that says what is missing.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise QuestionError("the question is empty; paste it with its options, as in 'What is 2 + 2? A. 3 B. 4'")
    body, written_key = _split_key(text)
    key = key or written_key
    run = _find_options(body)
    if not run:
        raise QuestionError("no options found; label them, as in 'What is 2 + 2? A. 3 B. 4', or one to a line")
    stem = _STEM_TAIL.sub("", body[: run[0].start])
    ends = [marker.start for marker in run[1:]] + [len(body)]
    options = [_tidy(body[marker.end : end]) for marker, end in zip(run, ends, strict=True)]
    answer = letter_of_label(key, [marker.label for marker in run]) if key else None
    # A stem keeps its lines, which may be code or a list of statements; an option is one line.
    stem = "\n".join(line.rstrip() for line in _STEM_HEAD.sub("", _LOOSE_BULLET.sub("", stem)).strip().split("\n"))
    return MCQ(stem, tuple(options), answer)


def letter_of_label(label: str, labels: Sequence[str]) -> str:
    """Return the letter of the option labeled `label` among `labels`; raises QuestionError where there is none.

    Case, brackets and the form of a letter ("ａ", "Ⓐ") do not matter. A Cyrillic or Greek letter counts as the Latin one
    that it looks like, unless the labels are in its own alphabet.
    """
    known = [name.upper() for name in plain_labels(labels)]
    folded = _fold(label)
    for wanted in (folded.upper(), folded.translate(_LOOK_ALIKES).upper()):
        if wanted in known:
            return LETTERS[known.index(wanted)]
    if folded.isdecimal() and not any(name.isdecimal() for name in known):
        raise QuestionError(
            f"the key is {folded}, which may count from 0 or from 1; write the letter, {known[0]} to {known[-1]}"
        )
    raise QuestionError(f"the key is '{label}', but the options are labeled {', '.join(labels)}")


def plain_labels(labels: Sequence[str]) -> list[str]:
    """Return `labels` without brackets and special forms, those that only look Latin replaced by the Latin letters."""
    folded = [_fold(label) for label in labels]
    return folded if _UNLIKE.intersection(folded) else [label.translate(_LOOK_ALIKES) for label in folded]


def _fold(label: str) -> str:
    """Return a label without what stands around it, as in "A" for "(A)", "Ⓐ" and "Ａ．"."""
    return unicodedata.normalize("NFKC", label).strip().strip(_AROUND).strip()


def _split_key(text: str) -> tuple[str, str | None]:
    """Cut "Answer:" or "Answer: B" off the end of `text`; returns the rest and the key."""
    head, newline, last = text.rpartition("\n")
    if newline and (match := _KEY.fullmatch(last)):
        return head.rstrip(), match[1]
    inline = _INLINE_KEY.search(text)
    return (text[: inline.start()].rstrip(), inline[1]) if inline else (text, None)


def _find_markers(text: str) -> list[_Marker]:
    found = list(_MARKER.finditer(text))
    labels = plain_labels([match[0] for match in found])
    styles = [unicodedata.normalize("NFKC", match[0]).replace(_fold(match[0]), "x", 1) for match in found]
    return [
        _Marker(match.start(), match.end(), label, style) for match, label, style in zip(found, labels, styles, strict=True)
    ]


def _find_options(text: str) -> list[_Marker]:
    """Return the markers of the options: the longest run A, B, C, ... in one style.

    Markers at the start of a line are believed before others, letters before numbers (which may number statements in
    the stem), and the later of two equal runs before the earlier (which may number the question itself).
    """
    markers = _find_markers(text)
    at_line_start = [m for m in markers if _LINE_START.match(text[text.rfind("\n", 0, m.start) + 1 : m.start])]
    single: list[_Marker] = []
    for candidates in (at_line_start, markers):
        for series in _SERIES:
            run = _longest_run(candidates, series)
            if len(run) >= 2:
                _refuse_gap(candidates, run, series)
                return run
            single = single or run
    return single


def _longest_run(markers: list[_Marker], series: Sequence[str]) -> list[_Marker]:
    best: list[_Marker] = []
    for index, first in enumerate(markers):
        if first.label != series[0]:
            continue
        run = [first]
        for marker in markers[index + 1 :]:
            if len(run) < len(series) and marker.label == series[len(run)] and marker.style == first.style:
                run.append(marker)
        if len(run) >= len(best):
            best = run
    return best


def _refuse_gap(markers: list[_Marker], run: list[_Marker], series: Sequence[str]) -> None:
    """Raise QuestionError where the labels skip one or go on past the tenth, rather than lose an option silently."""
    after = [marker for marker in markers if marker.start > run[-1].start and marker.style == run[0].style]
    known = [*series, *_AFTER_THE_TENTH.get(series[0], ())]
    for previous, marker in pairwise([run[-1], *after]):
        if marker.label in known[len(run) :]:
            if len(run) == MAX_OPTIONS:
                raise QuestionError(f"a question needs 2 to {MAX_OPTIONS} options, this one has more")
            raise QuestionError(f"option {marker.label} follows {previous.label}; option {series[len(run)]} is missing")


def _tidy(text: str) -> str:
    return " ".join(_LOOSE_BULLET.sub("", text).split())
