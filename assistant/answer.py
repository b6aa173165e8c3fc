"""Assistant: retrieve passages, prompt the model, score the options → Answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assistant.mcq import MCQ
from assistant.model import LanguageModel, ScoringKind
from assistant.prompt import Prompt, render
from assistant.scoring import encode, score_letters, score_texts
from ingest.course import Course, Hit

_LITTLE_MASS = 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's answer: `probabilities` belong to the options in order and sum to 1; `letter` is the likeliest.

    `sources` are the passages that the model read, most relevant first. `letter_mass` is the share of the next token's
    probability that all letters hold (None under cloze scoring). `warnings` are sentences for the user.
    """

    mcq: MCQ
    letter: str
    probabilities: tuple[float, ...]
    sources: tuple[Hit, ...]
    model: str
    scoring: str
    letter_mass: float | None
    warnings: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what a script needs, in types that JSON knows."""
        return {
            "id": self.mcq.id,
            "question": self.mcq.question,
            "options": dict(zip(self.mcq.letters, self.mcq.options, strict=True)),
            "letter": self.letter,
            "probabilities": dict(zip(self.mcq.letters, (round(p, 6) for p in self.probabilities), strict=True)),
            "key": self.mcq.answer,
            "sources": [
                {
                    "document": hit.passage.document,
                    "heading": hit.passage.heading,
                    "page_first": hit.passage.page_first,
                    "page_last": hit.passage.page_last,
                    "start": hit.passage.start,
                    "end": hit.passage.end,
                    "score": round(hit.score, 6),
                    "relevance": round(hit.relevance, 4),
                    "text": hit.passage.text,
                }
                for hit in self.sources
            ],
            "model": self.model,
            "scoring": self.scoring,
            "letter_mass": None if self.letter_mass is None else round(self.letter_mass, 6),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


class Assistant:
    """Answers questions with one model and, where `course` is given, with passages of that course."""

    def __init__(
        self,
        lm: LanguageModel,
        course: Course | None = None,
        *,
        scoring: ScoringKind | None = None,
        passages: int | None = None,
    ) -> None:
        """`scoring` and `passages` (how many the prompt shows) default to what the model's card says."""
        self.lm = lm
        self.course = course
        self.scoring = scoring or lm.card.scoring
        self.passages = lm.card.passages if passages is None else passages
        if course is not None and self.passages:
            course.warm_up()

    def answer(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> Answer:
        """Answer one question; the same question gets the same answer. Raises ModelError where it exceeds the window.

        `examples` are solved questions that the prompt shows first.
        """
        started = time.perf_counter()
        hits, prompt, dropped = self.prepare(mcq, examples)
        warnings = []
        if dropped:
            warnings.append(
                f"only {len(hits)} of {len(hits) + dropped} passages fit the model's window of {self.lm.window} tokens"
            )
        if self.scoring == "letter":
            scores = score_letters(self.lm, prompt)
        else:
            scores = score_texts(self.lm, prompt, self.lm.card.normalization)
        if scores.letter_mass is not None and scores.letter_mass < _LITTLE_MASS:
            warnings.append(
                f"the model gives all letters together {scores.letter_mass:.0%} of its probability: "
                "it may not follow this kind of prompt; try --scoring cloze"
            )
        # Probabilities from another scoring than the card's would be off by its temperature.
        temperature = self.lm.card.temperature if self.scoring == self.lm.card.scoring else 1.0
        probabilities = scores.probabilities(temperature)
        return Answer(
            mcq=mcq,
            letter=mcq.letters[probabilities.index(max(probabilities))],
            probabilities=probabilities,
            sources=tuple(hits),
            model=self.lm.name,
            scoring=self.scoring,
            letter_mass=scores.letter_mass,
            warnings=tuple(warnings),
            seconds=time.perf_counter() - started,
        )

    def prepare(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> tuple[list[Hit], Prompt, int]:
        """Return the passages to show, most relevant first, the prompt with them, and how many did not fit the window.

        The least relevant passages are dropped until the prompt fits; the question and the examples always stay.
        """
        hits: list[Hit] = []
        if self.course is not None and self.passages:
            # The options name what the question asks about: with them the right section is found far more often.
            hits = self.course.search("\n".join((mcq.question, *mcq.options)), self.passages)
        found = len(hits)
        while True:
            prompt = render(mcq, [hit.passage.text for hit in hits], self.scoring, examples)
            if not hits or encode(self.lm, prompt).longest <= self.lm.window:
                return hits, prompt, found - len(hits)
            hits = hits[:-1]
