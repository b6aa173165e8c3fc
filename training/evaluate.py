"""Models before and after training on the same questions, preferences and responses → figures, compared item by item."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assistant import evaluate as asking
from assistant import stats
from assistant.answer import Assistant
from assistant.card import ScoringKind
from assistant.evaluate import Comparison
from assistant.items import Item, read_items
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.prompt import Prompt
from assistant.quantization import DtypeName, Quantization
from ingest.course import Course, Hit
from ingest.errors import UserError
from ingest.store import Passage
from training.bootstrap import Estimate, mean, of_sums
from training.likelihood import Likelihood, encode, likelihoods
from training.pairs import Pair, prompt_key
from training.recipe import Evaluation, File, Format, Questions
from training.responses import Response, drawn, read_responses

Progress = Callable[[int, int], None]  # items read, items in all, over all variants


@dataclass(frozen=True, slots=True)
class Variant:
    """A model to evaluate: what reports call it, what `load_model` takes (None: the one that comes along), and how it computes.

    In 16 bits, rounding moves an answer's log-likelihood by tenths of a nat: small rewards need `dtype` "fp32".
    """

    name: str
    model: str | None
    quantize: Quantization = "none"
    dtype: DtypeName = "auto"


@dataclass(frozen=True, slots=True)
class Ranked:
    """In how many of `n` pairs the chosen answer stands above the rejected one; `against` is that beside another ranking."""

    right: int
    n: int
    against: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Rewards:
    """The implicit rewards of a tuned model, beta · (log p tuned - log p base) (Rafailov et al., arXiv 2305.18290, section 4).

    `accuracy` ranks answers by reward, against the base's ranking by likelihood. `margin` is the mean reward of the chosen
    answer less that of the rejected one.
    """

    accuracy: Ranked
    margin: Estimate
    chosen: Estimate
    rejected: Estimate


@dataclass(frozen=True, slots=True)
class Preferences:
    """A model on pairs: how it ranks answers by log-likelihood and by the same per token, both against the first model.

    `chosen` and `rejected` are mean log-likelihoods in nats, `margin` their mean difference. `rewards` are those over the first
    model, None for that one itself.
    """

    likelihood: Ranked
    per_token: Ranked
    chosen: Estimate
    rejected: Estimate
    margin: Estimate
    rewards: Rewards | None


@dataclass(frozen=True, slots=True)
class PreferenceReport:
    """Models on the same `n` pairs of `prompts` prompts, in the order of the variants; `left_out` pairs had no room."""

    n: int
    prompts: int
    beta: float
    models: tuple[Preferences, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Responses:
    """A model on good answers: cross-entropy in nats a token, perplexity, and the first's difference from the former."""

    cross_entropy: Estimate
    perplexity: Estimate
    difference: Estimate | None
    tokens: int


@dataclass(frozen=True, slots=True)
class ResponseReport:
    """Models on the same `n` answers to `prompts` prompts of a file; `left_out` answers had no room."""

    source: str
    n: int
    prompts: int
    models: tuple[Responses, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured of the variants, the first being what the others are compared with. `notes` say what was left out."""

    variants: tuple[Variant, ...]
    summaries: tuple[str, ...]
    form: Format
    max_length: int
    questions: tuple[asking.Report, ...]
    preferences: PreferenceReport | None
    responses: tuple[ResponseReport, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    source: str
    items: Sequence[Item]
    wanted: Questions


@dataclass(frozen=True, slots=True)
class _Found:
    """What one model came to: its answers by question file, and likelihoods of pairs and of responses by file."""

    summary: str
    answers: list[asking.Result]
    pairs: list[tuple[Likelihood, ...] | None]
    responses: list[list[tuple[Likelihood, ...] | None]]


def evaluate(
    variants: Sequence[Variant],
    evaluation: Evaluation,
    *,
    pairs: Sequence[Pair] = (),
    form: Format = "chat",
    beta: float = 0.1,
    max_length: int = 1024,
    seed: int = 0,
    locate: Callable[[File | Questions], Path] = lambda source: source.file or Path(),
    load: Callable[[Variant], LanguageModel] = lambda one: load_model(one.model, quantize=one.quantize, dtype=one.dtype),
    on_progress: Progress = lambda *_: None,
) -> Report:
    """Measure the variants on the files of `evaluation`, and on held-out `pairs` where it wants preferences.

    Each model is loaded once, one after the other, and what it said of an item is kept, not the model. `form`, `beta` and
    `max_length` (tokens of prompt and answer together) are those of training; `locate` says where a file lies. Raises
    UserError where a file or model cannot be used, or nothing is to be measured.
    """
    notes: list[str] = []
    asked = [_questions(locate(wanted), wanted, notes) for wanted in evaluation.questions]
    answers = [_responses(locate(file), file, seed, notes) for file in evaluation.responses]
    pairs = pairs if evaluation.preferences else ()
    for pair in pairs:
        if not (pair.chosen.strip() and pair.rejected.strip()):
            raise UserError(f"{pair.place}: an answer is empty; leave the pair out")
    if not (asked or pairs or answers):
        raise UserError("there is nothing to evaluate on; give questions, preferences or responses")
    each = sum(len(one.items) for one in asked) + len(pairs) + sum(len(responses) for _, responses in answers)
    found = []
    for place, variant in enumerate(variants):
        done = place * each

        def advance(more: int) -> None:
            nonlocal done
            done += more
            on_progress(done, each * len(variants))

        advance(0)
        found.append(_measured(variant, load, evaluation, asked, pairs, [r for _, r in answers], form, max_length, advance))
    keys = [prompt_key(pair) for pair in pairs]
    return Report(
        tuple(variants),
        tuple(one.summary for one in found),
        form,
        max_length,
        tuple(
            asking.compare([one.answers[i] for one in found], source=of_file.source, shots=of_file.wanted.shots)
            for i, of_file in enumerate(asked)
        ),
        _preferences([one.pairs for one in found], keys, beta, seed) if pairs else None,
        tuple(
            _on_responses(source, [one.responses[i] for one in found], [repr(r.prompt) for r in responses], seed)
            for i, (source, responses) in enumerate(answers)
        ),
        tuple(notes),
    )


def _questions(path: Path, wanted: Questions, notes: list[str]) -> _Asked:
    if wanted.course is not None:
        Course.open(wanted.course)
    items = read_items(path, shots=wanted.shots, subjects=wanted.subjects, limit=wanted.use)
    for item in items.items:
        if wanted.fact and not item.fact:
            raise UserError(f"{item.place}: no 'fact1'; leave 'fact' out of the recipe, or use a file that has facts")
    notes += items.bad
    if items.without_key:
        notes.append(f"{path}: {items.without_key} questions have no key")
    return _Asked(path.name, items.items, wanted)


def _responses(path: Path, file: File, seed: int, notes: list[str]) -> tuple[str, list[Response]]:
    found, bad = read_responses(path)
    notes += bad
    return path.name, drawn(found, file.use, seed)


def _measured(
    variant: Variant,
    load: Callable[[Variant], LanguageModel],
    evaluation: Evaluation,
    asked: Sequence[_Asked],
    pairs: Sequence[Pair],
    answers: Sequence[Sequence[Response]],
    form: Format,
    max_length: int,
    advance: Callable[[int], None],
) -> _Found:
    """Load a model, ask it everything, and let go of it."""
    lm = load(variant)

    def read(items: Sequence[tuple[Pair | Response, Sequence[str]]]) -> list[tuple[Likelihood, ...] | None]:
        encoded = [encode(lm, item.prompt, texts, form, max_length) for item, texts in items]
        advance(sum(one is None for one in encoded))
        found = iter(likelihoods(lm, [one for one in encoded if one is not None], advance))
        return [None if one is None else next(found) for one in encoded]

    results = _Found(
        lm.summary,
        [_answers(variant, lm, evaluation, one, advance) for one in asked],
        read([(pair, (pair.chosen, pair.rejected)) for pair in pairs]),
        [read([(response, (response.answer,)) for response in of_file]) for of_file in answers],
    )
    lm.model = lm._kept = None  # the next one needs the room
    gc.collect()
    return results


def _answers(
    variant: Variant, lm: LanguageModel, evaluation: Evaluation, asked: _Asked, advance: Callable[[int], None]
) -> asking.Result:
    course = asked.wanted.course

    def assistant(_: asking.Variant) -> Assistant:
        if asked.wanted.fact:
            return _Informed(lm, {item.mcq: item.fact for item in asked.items}, evaluation.scoring)
        return Assistant(lm, Course.open(course) if course else None, scoring=evaluation.scoring, passages=evaluation.passages)

    done = 0

    def show(now: int, _: int) -> None:
        nonlocal done
        advance(now - done)
        done = now

    passages = evaluation.passages if course else None
    named = asking.Variant(variant.name, lm.quantization, course, evaluation.scoring, passages, variant.dtype)
    return asking.evaluate(named, asked.items, assistant, show)


class _Informed(Assistant):
    """Shows each question with a fact of its own, in place of passages that were searched for."""

    def __init__(self, lm: LanguageModel, facts: Mapping[MCQ, str], scoring: ScoringKind | None) -> None:
        super().__init__(lm, scoring=scoring)
        self._facts = facts

    def prepare(self, mcq: MCQ, examples: Sequence[MCQ] = ()) -> tuple[list[Hit], Prompt, int]:
        """Return the fact as the one passage, the prompt with it, and whether it had to be left out for want of room."""
        passage = Passage("", "fact", self._facts[mcq], "", 0, 0, 0, 0)
        return self._fitted(mcq, [Hit(passage, 1.0, 1.0)], examples)


def _preferences(
    found: Sequence[Sequence[tuple[Likelihood, ...] | None]], prompts: Sequence[str], beta: float, seed: int
) -> PreferenceReport:
    """Compare models by their likelihoods of (chosen, rejected) of the same pairs; None where one had no room for them."""
    kept = _kept(found, "pair")
    groups = [prompts[index] for index in kept]
    # Log-likelihoods and tokens, each of shape (models, pairs, 2).
    read = [[one[index] or () for index in kept] for one in found]
    nats = np.array([[[answer.nats for answer in pair] for pair in of_model] for of_model in read])
    tokens = np.array([[[answer.tokens for answer in pair] for pair in of_model] for of_model in read])
    by_sum = nats[:, :, 0] > nats[:, :, 1]
    by_token = (nats / tokens)[:, :, 0] > (nats / tokens)[:, :, 1]

    def estimate(values: np.ndarray) -> Estimate:
        return mean(values, groups, seed)

    def rewards(place: int) -> Rewards:
        reward = beta * (nats[place] - nats[0])
        chosen, rejected = reward[:, 0], reward[:, 1]
        return Rewards(_ranked(chosen > rejected, by_sum[0]), estimate(chosen - rejected), estimate(chosen), estimate(rejected))

    models = [
        Preferences(
            _ranked(by_sum[place], by_sum[0] if place else None),
            _ranked(by_token[place], by_token[0] if place else None),
            estimate(nats[place, :, 0]),
            estimate(nats[place, :, 1]),
            estimate(nats[place, :, 0] - nats[place, :, 1]),
            rewards(place) if place else None,
        )
        for place in range(len(found))
    ]
    return PreferenceReport(len(kept), len(set(groups)), beta, tuple(models), len(prompts) - len(kept))


def _ranked(right: np.ndarray, other: np.ndarray | None) -> Ranked:
    n = len(right)
    if other is None:
        return Ranked(int(right.sum()), n)
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    against = Comparison(gained, lost, stats.paired_difference(gained, lost, n), stats.mcnemar_exact(gained, lost))
    return Ranked(int(right.sum()), n, against)


def _on_responses(
    source: str, found: Sequence[Sequence[tuple[Likelihood, ...] | None]], prompts: Sequence[str], seed: int
) -> ResponseReport:
    """Compare models by their likelihoods of the same answers; None where one had no room for it."""
    kept = _kept(found, f"answer of {source}")
    groups = [prompts[index] for index in kept]
    read = [[(one[index] or ())[0] for index in kept] for one in found]
    nats = np.array([[answer.nats for answer in of_model] for of_model in read])
    tokens = np.array([[answer.tokens for answer in of_model] for of_model in read])

    def model(place: int) -> Responses:
        own = [-nats[place], tokens[place]]
        entropy = of_sums(own, groups, lambda total, n: total / n, seed)
        difference = None
        if place:
            columns = [*own, -nats[0], tokens[0]]
            difference = of_sums(columns, groups, lambda total, n, first, of_first: total / n - first / of_first, seed)
        ends = (float(np.exp(end)) for end in (entropy.value, entropy.low, entropy.high))
        return Responses(entropy, Estimate(*ends), difference, int(tokens[place].sum()))

    models = tuple(model(place) for place in range(len(found)))
    return ResponseReport(source, len(kept), len(set(groups)), models, len(prompts) - len(kept))


def _kept(found: Sequence[Sequence[object | None]], what: str) -> list[int]:
    """Return the items that all models have read; raises UserError where there is none."""
    kept = [index for index in range(len(found[0])) if all(one[index] is not None for one in found)]
    if not kept:
        raise UserError(f"no {what} fits: each prompt alone is longer than --max-length or than a model's window")
    return kept
