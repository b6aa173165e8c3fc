"""Assistant: retrieve passages, prompt the model, score the options → Answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from assistant.card import EVIDENCE, ScoringKind
from assistant.debias import averaged, letter_priors, rotated, shifts
from assistant.evidence import Kinds, columns, gather, zeros
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.prompt import Prompt, render
from assistant.scoring import OptionScores, check_window, encode, score
from ingest.course import Course, Hit
from ingest.errors import ModelError, UserError
from ingest.words import sentences

TOGETHER = 16  # questions that are best read together: enough for long rows, and soon done
LITTLE_MASS = 0.1  # of all letters together: below it, a model does not follow the prompt
# From this relevance of the best on, a course is asked. Below are 13 of 1,457 questions that belong to a course, and 399 of
# 400 that belong to another (docs/log.md).
_SHOWN = 0.1


@dataclass(frozen=True, slots=True)
class Parts:
    """What an answer's probabilities are made of, one number for each option, in nats up to a constant.

    `model` is the model's own score over its temperature. `evidence` is what else speaks for an option, by kind
    (assistant.evidence); empty where it was not looked for. It counts by the weights of the model's card.
    """

    model: tuple[float, ...]
    evidence: Kinds = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's answer: `probabilities` belong to the options in order and sum to 1; `letter` is the likeliest.

    `sources` are the passages that the model read, most relevant first. `letter_mass` is the share of the next token's
    probability that all letters hold (None under cloze scoring). `warnings` are sentences for the user. `seconds` is what the
    question took, or its share of what several took that were read together.
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
    parts: Parts

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
                    "pages": hit.passage.pages,
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
            "scores": [round(value, 5) for value in self.parts.model],
            "evidence": {kind: [round(value, 5) for value in values] for kind, values in self.parts.evidence.items()},
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Influence:
    """How much one source moved an answer: by how much the letter's probability falls without it.

    `sentence` is the one in it whose removal lowers that probability most, with by how much; empty where none does.
    """

    hit: Hit
    drop: float
    sentence: str
    sentence_drop: float


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A question ready to be scored."""

    mcq: MCQ
    hits: list[Hit]
    warnings: list[str]
    evidence: Kinds
    seconds: float


class Assistant:
    """Answers questions with one model and, where `course` is given, with passages of that course."""

    def __init__(
        self,
        lm: LanguageModel,
        course: Course | None = None,
        *,
        scoring: ScoringKind | None = None,
        passages: int | None = None,
        permute: int = 1,
    ) -> None:
        """`scoring` and `passages` (how many the prompt shows) default to what the model's card says.

        `permute` asks under so many cyclic rotations of the options and averages; it matters where the options are listed.
        """
        self.lm = lm
        self.course = course
        self.scoring = scoring or lm.card.scoring
        self.passages = lm.card.passages if passages is None else passages
        self.permute = permute
        # What the card says was learnt with its own scoring; with another, temperature and weights would be off.
        own = self.scoring == lm.card.scoring
        self.temperature = lm.card.temperature if own else 1.0
        self.evidence_weights = lm.card.evidence_weights if own and course is not None else {}
        self.priors = dict(lm.card.letter_priors) if self.scoring == "letter" else {}
        if course is not None and (self.passages or self.evidence_weights):
            course.warm_up()

    def answer(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> Answer:
        """Answer one question; the same question gets the same answer. Raises ModelError where it exceeds the window."""
        (answer,) = self.answer_many([mcq], examples)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def answer_many(
        self, mcqs: Sequence[MCQ], examples: Sequence[MCQ] = (), *, evidence: bool = False
    ) -> list[Answer | UserError]:
        """Answer questions together, which takes less time than one by one; each gets its answer, or why it has none.

        `examples` are solved questions that all prompts begin with. `evidence` is looked for where the card gives it weight, or
        where it is asked for.
        """
        results: dict[int, Answer | UserError] = {}
        ready: list[tuple[int, _Prepared]] = []
        for index, mcq in enumerate(mcqs):
            try:
                ready.append((index, self._prepared(mcq, examples, evidence)))
            except UserError as error:
                results[index] = error
        started = time.perf_counter()
        scored = self._scored([item.mcq for _, item in ready], [item.hits for _, item in ready], examples)
        share = (time.perf_counter() - started) / max(1, len(ready))
        for (index, item), (probabilities, scores, mass) in zip(ready, scored, strict=True):
            results[index] = self._answer(item, probabilities, scores, mass, share)
        return [results[index] for index in range(len(mcqs))]

    def learn_priors(self, mcqs: Sequence[MCQ]) -> None:
        """Learn which letters the model prefers, for each number of options, and allow for it from now on (letter scoring).

        Each question is asked under all rotations of its options; some dozens settle the priors (assistant.debias). Questions
        longer than the model's window are passed over.
        """
        seen: dict[int, list[list[tuple[float, ...]]]] = {}
        for mcq in mcqs if self.scoring == "letter" else ():
            try:
                hits = self._prepared(mcq, (), evidence=False).hits
                prompts = [self.prompt(rotated(mcq, shift), hits, ()) for shift in range(len(mcq.options))]
                logs = [_logs(found.probabilities()) for found in score(self.lm, prompts, "letter")]
            except ModelError:
                continue
            seen.setdefault(len(mcq.options), []).append(logs)
        self.priors |= {n: letter_priors(questions) for n, questions in seen.items()}

    def explain(self, answer: Answer, examples: Sequence[MCQ] = ()) -> list[Influence]:
        """Return how much each source of `answer` moved the probability of its letter, by asking again without it."""
        chosen = answer.mcq.letters.index(answer.letter)
        hits = list(answer.sources)
        parts_of = [sentences(hit.passage.text) for hit in hits]
        variants: list[list[Hit]] = []
        for place, hit in enumerate(hits):
            variants.append([*hits[:place], *hits[place + 1 :]])
            for sentence in parts_of[place]:
                shorter = replace(hit, passage=replace(hit.passage, text=hit.passage.text.replace(sentence, "", 1).strip()))
                variants.append([*hits[:place], shorter, *hits[place + 1 :]])
        scored = iter(self._scored([answer.mcq] * len(variants), variants, examples))

        def drop() -> float:
            own = next(scored)[1]
            fused = self._fused(own, answer.parts.evidence)
            return answer.probabilities[chosen] - OptionScores(fused).probabilities()[chosen]

        found = []
        for hit, parts in zip(hits, parts_of, strict=True):
            whole = drop()
            drops = [(drop(), sentence) for sentence in parts]
            most, sentence = max(drops, default=(0.0, ""), key=lambda pair: pair[0])
            found.append(Influence(hit, whole, sentence if most > 0 else "", max(0.0, most)))
        return found

    def prepare(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> tuple[list[Hit], Prompt, int]:
        """Return the passages to show, most relevant first, the prompt with them, and how many did not fit the window.

        The least relevant passages are dropped until the prompt fits; the question always stays. Raises ModelError where it
        alone does not fit.
        """
        return self._fitted(mcq, self._found(mcq, self.passages), examples)

    def _found(self, mcq: MCQ, limit: int) -> list[Hit]:
        """Return the best passages that the course holds for a question, at most `limit`."""
        if self.course is None or not limit:
            return []
        # The options name what the question asks about: with them the right section is found far more often.
        return self.course.search("\n".join((mcq.question, *mcq.options)), limit)

    def shown(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> list[Hit]:
        """Return the passages that an answer to `mcq` reads, most relevant first: those that fit, if any is about it.

        Raises ModelError where the question alone does not fit the window.
        """
        return self._prepared(mcq, examples, evidence=False).hits

    def _fitted(self, mcq: MCQ, hits: list[Hit], examples: Sequence[MCQ]) -> tuple[list[Hit], Prompt, int]:
        found = len(hits)
        while True:
            prompt = self.prompt(mcq, hits, examples)
            longest = encode(self.lm, prompt).longest
            if longest <= self.lm.window or not hits:
                check_window(self.lm, longest)
                return hits, prompt, found - len(hits)
            hits = hits[:-1]

    def prompt(self, mcq: MCQ, hits: Sequence[Hit], examples: Sequence[MCQ] = ()) -> Prompt:
        """Return the prompt that shows these passages, most relevant first, and solved `examples`."""
        return render(mcq, [hit.passage.text for hit in hits], self.scoring, examples, self.lm.card.template)

    def _prepared(self, mcq: MCQ, examples: Sequence[MCQ], evidence: bool) -> _Prepared:
        started = time.perf_counter()
        hits, _, dropped = self.prepare(mcq, examples)
        warnings = []
        if dropped:
            warnings.append(
                f"only {len(hits)} of {len(hits) + dropped} passages fit the model's window of {self.lm.window} tokens"
            )
        found: Kinds = {}
        if self.course is not None:
            is_foreign = bool(hits) and all(hit.relevance < _SHOWN for hit in hits)
            if evidence or self.evidence_weights:
                found = zeros(mcq) if is_foreign else gather(self.course, mcq)
            if is_foreign:
                hits = []
                warnings.append(f"the course {self.course.name} seems to hold nothing about this; answered without it")
        return _Prepared(mcq, hits, warnings, found, time.perf_counter() - started)

    def _scored(
        self, mcqs: Sequence[MCQ], hits: Sequence[Sequence[Hit]], examples: Sequence[MCQ]
    ) -> list[tuple[tuple[float, ...], tuple[float, ...], float | None]]:
        """Return for each question the model's own probabilities, its scores over its temperature, and its letter mass."""
        rotations = [shifts(len(mcq.options), self.permute if self.scoring == "letter" else 1) for mcq in mcqs]
        prompts = [
            self.prompt(rotated(mcq, shift) if shift else mcq, of_question, examples)
            for mcq, of_question, moved in zip(mcqs, hits, rotations, strict=True)
            for shift in moved
        ]
        scored = iter(score(self.lm, prompts, self.scoring, self.lm.card.normalization))
        results = []
        for mcq, moved in zip(mcqs, rotations, strict=True):
            under = [(shift, next(scored)) for shift in moved]
            prior = self.priors.get(len(mcq.options)) if len(moved) < len(mcq.options) else None
            seen = [(shift, self._debiased(found, prior).probabilities(self.temperature)) for shift, found in under]
            probabilities = averaged(seen)
            if len(moved) == 1:
                scores = tuple(value / self.temperature for value in self._debiased(under[0][1], prior).scores)
            else:
                scores = _logs(probabilities)
            masses = [found.letter_mass for _, found in under if found.letter_mass is not None]
            results.append((probabilities, scores, sum(masses) / len(masses) if masses else None))
        return results

    @staticmethod
    def _debiased(scores: OptionScores, prior: tuple[float, ...] | None) -> OptionScores:
        if prior is None or scores.letter_mass is None:
            return scores
        return replace(scores, scores=tuple(value - p for value, p in zip(scores.scores, prior, strict=True)))

    def _fused(self, own: tuple[float, ...], evidence: Kinds) -> tuple[float, ...]:
        if not evidence:
            return own
        weights = (1.0, *(self.evidence_weights.get(kind, 0.0) for kind in EVIDENCE))
        return tuple(
            sum(weight * value for weight, value in zip(weights, values, strict=True))
            for values in zip(*columns(own, evidence), strict=True)
        )

    def _answer(
        self, item: _Prepared, own: tuple[float, ...], scores: tuple[float, ...], mass: float | None, seconds: float
    ) -> Answer:
        warnings = list(item.warnings)
        if mass is not None and mass < LITTLE_MASS:
            warnings.append(
                f"the model gives all letters together {mass:.0%} of its probability: "
                "it may not follow this kind of prompt; try --scoring cloze"
            )
        probabilities = own
        if self.evidence_weights:
            probabilities = OptionScores(self._fused(scores, item.evidence)).probabilities()
        return Answer(
            mcq=item.mcq,
            letter=item.mcq.letters[probabilities.index(max(probabilities))],
            probabilities=probabilities,
            sources=tuple(item.hits),
            model=self.lm.name,
            scoring=self.scoring,
            letter_mass=mass,
            warnings=tuple(warnings),
            seconds=item.seconds + seconds,
            parts=Parts(scores, item.evidence),
        )


def _logs(probabilities: Sequence[float]) -> tuple[float, ...]:
    import numpy as np

    return tuple(np.log(np.maximum(probabilities, 1e-12)).tolist())
