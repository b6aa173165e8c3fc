"""Students' corrections → keyed questions, and pairs of the right option's text before the one the model took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.mcq import MCQ
from assistant.prompt import render
from ingest.errors import UserError
from training.pairs import Layout, Message, Pair, PairRow, normalize
from training.records import read_records


@dataclass(frozen=True, slots=True)
class Correction:
    """What students hold right for one question: `mcq` has it as its key; `assistant` is the letter that the model gave.

    `document` and `page` are where the most relevant passage stood, empty and None where there was none. `line` is the place
    in the file, `times` how many corrections agree.
    """

    mcq: MCQ
    assistant: str
    document: str
    page: int | None
    line: int
    times: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the row of a question file (course-2025)."""
        row: dict[str, Any] = {
            "id": self.mcq.id,
            "subject": self.mcq.subject,
            "question": self.mcq.question,
            "choices": list(self.mcq.options),
            "answer": self.mcq.answer,
        }
        return row | ({"document": self.document, "page": self.page} if self.document else {})


@dataclass(slots=True)
class Feedback:
    """A file of corrections: those to use, the bad lines with their reasons, and what was left out as contradictory."""

    corrections: list[Correction] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def read_feedback(path: Path) -> Feedback:
    """Read what the page recorded (assistant.feedback). Of several corrections of one answer the last one counts.

    A question for which they disagree, whatever the order of its options, is left out and named. Raises UserError where the
    file as a whole cannot be read.
    """
    if not path.is_file():
        raise UserError(f"there are no corrections at {path}; students make them on the page, under each answer")
    found = Feedback()
    latest: dict[str, Correction] = {}
    for record in read_records(path):
        try:
            if record.error:
                raise UserError(record.error)
            correction = _correction(record.value, record.line)
        except UserError as error:
            found.bad.append((record.line, str(error)))
        else:
            asked = str(record.value.get("asked") or f"line {record.line}")
            latest.pop(asked, None)
            latest[asked] = correction
    questions: dict[str, list[Correction]] = {}
    for correction in latest.values():
        questions.setdefault(_key(correction.mcq), []).append(correction)
    for same in questions.values():
        rights = {normalize(_right(correction.mcq)) for correction in same}
        if len(rights) > 1:
            lines = ", ".join(str(correction.line) for correction in same)
            said = " and ".join(sorted({f"'{_right(correction.mcq)}'" for correction in same}))
            found.conflicts.append(f"lines {lines}: {said} are both held right for '{same[0].mcq.question[:80]}'")
        else:
            # Of those that agree, one at which the model was wrong teaches more.
            best = next((one for one in same if one.assistant != one.mcq.answer), same[0])
            found.corrections.append(Correction(best.mcq, best.assistant, best.document, best.page, best.line, len(same)))
    return found


def feedback_pairs(corrections: Sequence[Correction], name: str) -> Iterator[PairRow]:
    """Yield a pair for each question that the model got wrong: the right option's text over the one it took (cloze)."""
    for correction in corrections:
        mcq = correction.mcq
        if correction.assistant == mcq.answer or mcq.answer is None:
            continue
        prompt = render(mcq, (), "cloze")
        said = dict(zip(mcq.letters, prompt.continuations, strict=True))
        pair = Pair((Message("user", prompt.prefix),), said[mcq.answer], said[correction.assistant], name, correction.line)
        yield PairRow(correction.line, pair, layout=Layout.mcq)


def _correction(value: Any, line: int) -> Correction:
    """Return the correction in a record; raises UserError where it is none."""
    if not isinstance(value, Mapping):
        raise UserError("not a correction; give the file that the page wrote")
    question, options, course = value.get("question"), value.get("options"), value.get("course")
    if not isinstance(question, str) or not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError("not a correction: 'question' or 'options' is missing")
    subject = course if isinstance(course, str) and course else None
    right = value.get("letter")
    if not isinstance(right, str):
        raise UserError("not a correction: 'letter' is missing")
    mcq = MCQ(question, tuple(options), right, id=f"feedback-{line}", subject=subject)
    letter = value.get("assistant")
    if not isinstance(letter, str) or letter not in tuple(mcq.letters):
        raise UserError("not a correction: 'assistant' is no letter of the question")
    passages = value.get("passages")
    first = passages[0] if isinstance(passages, list) and passages and isinstance(passages[0], Mapping) else {}
    document, page = first.get("document"), first.get("page")
    return Correction(mcq, letter, document if isinstance(document, str) else "", page if isinstance(page, int) else None, line)


def _right(mcq: MCQ) -> str:
    return mcq.options[mcq.answer_index]


def _key(mcq: MCQ) -> str:
    """Return what two askings of one question have in common, the order of its options aside."""
    return "\n".join((normalize(mcq.question), *sorted(map(normalize, mcq.options))))
