"""Variants of the assistant, one after the other, on the same keyed questions → what each came to, compared item by item."""

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from assistant import stats
from assistant.card import ScoringKind
from assistant.items import Item
from assistant.locate import DEFAULT
from assistant.mcq import LETTERS
from assistant.quantization import DtypeName, Quantization
from ingest.errors import UserError

if TYPE_CHECKING:
    from assistant.answer import Assistant

_PATIENCE = 10  # seconds for a process to end by itself

Progress = Callable[[int, int], None]  # items done, items in all
Factory = Callable[["Variant"], "Assistant"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to answer: a model (None: the one that comes along) in some number format or quantized, with a course or none.

    `scoring` and `passages` default to what the model's card says.
    """

    model: str | None = None
    quantize: Quantization = "none"
    course: str | None = None
    scoring: ScoringKind | None = None
    passages: int | None = None
    dtype: DtypeName = "auto"

    @property
    def name(self) -> str:
        """What reports call it, as in "smollm2-135m-instruct, int8, operating-systems, cloze"."""
        parts = [self.model or DEFAULT]
        if self.dtype != "auto":
            parts.append(self.dtype)
        if self.quantize != "none":
            parts.append(self.quantize)
        parts.append(self.course or "no course")
        if self.passages is not None and self.course:
            parts.append(f"{self.passages} passages")
        if self.scoring:
            parts.append(self.scoring)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a variant answered to one item, or why it could not.

    `probabilities` belong to the options in order. `seconds` include the search. `tokens` are those of the prompt and all
    options, what options share counted once.
    """

    id: str
    subject: str
    key: str
    letter: str | None
    probabilities: tuple[float, ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""

    @property
    def correct(self) -> bool:
        """Whether the letter is the key."""
        return self.letter == self.key


@dataclass(frozen=True, slots=True)
class Result:
    """A variant's outcomes in the order of the items, and what it took.

    `weight_bytes` is what the model's weights take. Bytes are None where they are not known: the resident memory of the process
    at its highest, loading included (and, where a model is used for the first time, its conversion), and at the end, both only
    from `evaluate_apart` on Linux; the highest use of the GPU, only with one.
    """

    variant: Variant
    outcomes: tuple[Outcome, ...]
    scoring: str
    passages: int
    dtype: str
    device: str
    seconds_to_load: float
    weight_bytes: int | None = None
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    gpu_bytes: int | None = None


def variants(
    models: Sequence[str | None] = (None,),
    quantize: Sequence[Quantization] = ("none",),
    courses: Sequence[str | None] = (None,),
    scoring: Sequence[ScoringKind | None] = (None,),
    passages: Sequence[int | None] = (None,),
    dtypes: Sequence[DtypeName] = ("auto",),
) -> list[Variant]:
    """Return every combination of what is given, models varying slowest, each once."""
    combined = product(models, dtypes, quantize, courses, scoring, passages)
    # Without a course there are no passages to vary.
    return list(dict.fromkeys(Variant(m, q, c, s, p if c else None, d) for m, d, q, c, s, p in combined))


def build(variant: Variant) -> "Assistant":
    """Load what the variant names; raises UserError where something is missing."""
    from assistant.answer import Assistant
    from assistant.model import load_model
    from ingest.course import Course

    lm = load_model(variant.model, quantize=variant.quantize, dtype=variant.dtype)
    course = Course.open(variant.course) if variant.course else None
    return Assistant(lm, course, scoring=variant.scoring, passages=variant.passages)


def evaluate(
    variant: Variant, items: Sequence[Item], assistant_factory: Factory = build, on_progress: Progress = lambda *_: None
) -> Result:
    """Answer every item with one variant, in this process.

    An item that the variant cannot answer gets an outcome with `error`. The first item is answered once before the clock
    starts: what a model sets up at its first question is no question's time.
    """
    from assistant.answer import TOGETHER

    started = time.perf_counter()
    assistant = assistant_factory(variant)
    seconds_to_load = time.perf_counter() - started
    if items:
        _outcomes(assistant, items[:1])
    on_progress(0, len(items))
    outcomes: list[Outcome] = []
    for _, group in groupby(items, key=lambda item: item.examples):
        same = list(group)  # what these show first is read once
        for start in range(0, len(same), TOGETHER):
            outcomes += _outcomes(assistant, same[start : start + TOGETHER])
            on_progress(len(outcomes), len(items))
    weights = assistant.lm.model
    return Result(
        variant,
        tuple(outcomes),
        scoring=assistant.scoring,
        passages=assistant.passages if assistant.course else 0,
        dtype=str(weights.dtype).removeprefix("torch."),
        device=str(assistant.lm.device),
        seconds_to_load=seconds_to_load,
        weight_bytes=assistant.lm.bytes,
        gpu_bytes=_gpu_bytes(),
    )


def _outcomes(assistant: "Assistant", items: Sequence[Item]) -> list[Outcome]:
    """Answer items that have the same examples together."""
    from assistant.scoring import encode

    answers = assistant.answer_many([item.mcq for item in items], items[0].examples)
    outcomes = []
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, UserError):  # longer than the model's window, say
            outcomes.append(Outcome(item.id, item.subject, item.key, None, error=str(answer)))
        else:
            known = (item.id, item.subject, item.key, answer.letter, answer.probabilities, answer.seconds)
            prompt = assistant.prompt(item.mcq, answer.sources, item.examples)
            outcomes.append(Outcome(*known, encode(assistant.lm, prompt).packed))
    return outcomes


def _gpu_bytes() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def evaluate_apart(
    variant: Variant, items: Sequence[Item], assistant_factory: Factory = build, on_progress: Progress = lambda *_: None
) -> Result:
    """Answer every item with one variant in a process of its own, and tell that process's memory.

    Only so is the memory that of one model: nothing of the variants before it is left, and all is given back at the end.
    Raises UserError where the variant cannot be loaded or its process dies. `assistant_factory` must be a module's function.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, variant, items, assistant_factory), daemon=True)
    process.start()
    sender.close()  # so that the end of the process ends the pipe
    try:
        while True:
            kind, content = receiver.recv()
            if kind == "progress":
                on_progress(*content)
            elif kind == "refused":
                raise UserError(content)
            elif kind == "crashed":
                raise RuntimeError(f"{variant.name}:\n{content}")
            else:
                result: Result = content
                process.join(_PATIENCE)
                return result
    except EOFError:
        process.join()
        raise UserError(
            f"its process ended with status {process.exitcode}, for want of memory perhaps; use a smaller --model or --quantize"
        ) from None
    finally:
        process.terminate()
        process.join(_PATIENCE)
        process.kill()
        process.join()
        receiver.close()


def _serve(sender: "Connection[tuple[str, object], object]", variant: Variant, items: Sequence[Item], factory: Factory) -> None:
    """Be the process of one variant: send its progress, then its result or why there is none."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this process will end it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in good order: what libraries hold of the system is given back
    try:
        result = evaluate(variant, items, factory, lambda *counts: sender.send(("progress", counts)))
        peak, resident = _resident_bytes()
        sender.send(("result", replace(result, peak_bytes=peak, resident_bytes=resident)))
    except UserError as error:
        sender.send(("refused", str(error)))
    except BrokenPipeError:
        pass  # nobody waits any more
    except Exception:  # noqa: BLE001 -- it is raised again where someone sees it
        sender.send(("crashed", traceback.format_exc()))


def _resident_bytes() -> tuple[int | None, int | None]:
    """Return this process's resident memory at its highest and now, in bytes; None where Linux does not tell them."""
    # Not getrusage: the peak that it tells begins with that of the process which started this one.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    told = dict(line.split(":", 1) for line in lines)
    return int(told["VmHWM"].split()[0]) * 1024, int(told["VmRSS"].split()[0]) * 1024


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant against the first on the same items.

    How many items it alone got right, how many the first alone, the gain's 95 % interval (-1 to 1), McNemar's exact p.
    """

    gained: int
    lost: int
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A variant's figures on the items that all variants answered. Pairs of whole numbers are (right, of how many)."""

    result: Result
    correct: int
    against_first: Comparison | None
    subjects: Mapping[str, tuple[int, int]]
    recalls: Mapping[str, tuple[int, int]]
    recall_spread: float
    recall_spread_interval: tuple[float, float]
    confidence: float
    calibration_error: float
    calibration_error_interval: tuple[float, float]
    bins: Sequence[stats.Bin]
    coverage: Sequence[tuple[int, int]]  # (answered, right), the surest first
    negative_log_likelihood: float
    brier: float
    seconds: float
    seconds_p95: float
    tokens: float

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.result.variant.name


@dataclass(frozen=True, slots=True)
class Report:
    """Variants compared on the same `n` items; the first is the baseline.

    `chance` is the accuracy of guessing. `left_out` says, by item, which variant could not answer it and why; `failed`, by
    variant, why it could not be loaded.
    """

    source: str
    shots: int
    n: int
    chance: float
    summaries: tuple[Summary, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def compare(results: Sequence[Result], *, source: str = "", shots: int = 0, failed: Mapping[str, str] | None = None) -> Report:
    """Compare variants that were asked the same items in the same order; raises UserError where no item was answered by all."""
    left_out: dict[str, str] = {}
    for result in results:
        for outcome in result.outcomes:
            if outcome.letter is None:
                left_out.setdefault(outcome.id, f"{result.variant.name}: {outcome.error}")
    paired = [[outcome for outcome in result.outcomes if outcome.id not in left_out] for result in results]
    if len({tuple((outcome.id, outcome.key) for outcome in outcomes) for outcomes in paired}) > 1:
        raise ValueError("the results are not on the same items")
    if not paired or not paired[0]:
        first = next(iter(left_out.values()), "there is none")
        raise UserError(f"no question was answered by all variants; the first reason: {first}")
    first_outcomes = paired[0]
    summaries = [_summary(result, outcomes, first_outcomes) for result, outcomes in zip(results, paired, strict=True)]
    summaries[0] = replace(summaries[0], against_first=None)
    chance = sum(1 / len(outcome.probabilities) for outcome in first_outcomes) / len(first_outcomes)
    return Report(source, shots, len(first_outcomes), chance, tuple(summaries), left_out, dict(failed or {}))


def _summary(result: Result, outcomes: Sequence[Outcome], first: Sequence[Outcome]) -> Summary:
    import numpy as np

    n = len(outcomes)
    correct = [outcome.correct for outcome in outcomes]
    sure = [max(outcome.probabilities) for outcome in outcomes]
    keys, letters = [outcome.key for outcome in outcomes], [outcome.letter or "" for outcome in outcomes]
    places = [LETTERS.index(key) for key in keys]
    gained = sum(mine and not other.correct for mine, other in zip(correct, first, strict=True))
    lost = sum(other.correct and not mine for mine, other in zip(correct, first, strict=True))
    error, bins = stats.expected_calibration_error(sure, correct)
    recall = stats.recalls(keys, letters)
    seconds = [outcome.seconds for outcome in outcomes]
    return Summary(
        result,
        correct=sum(correct),
        against_first=Comparison(gained, lost, stats.paired_difference(gained, lost, n), stats.mcnemar_exact(gained, lost)),
        subjects=_by_subject(outcomes),
        recalls=recall,
        recall_spread=stats.recall_spread(recall),
        recall_spread_interval=stats.recall_spread_interval(recall),
        confidence=sum(sure) / n,
        calibration_error=error,
        calibration_error_interval=stats.calibration_error_interval(sure, correct),
        bins=bins,
        coverage=stats.coverage_curve(sure, correct),
        negative_log_likelihood=stats.negative_log_likelihood(
            [outcome.probabilities[place] for outcome, place in zip(outcomes, places, strict=True)]
        ),
        brier=stats.brier_score([outcome.probabilities for outcome in outcomes], places),
        seconds=sum(seconds) / n,
        seconds_p95=float(np.quantile(seconds, 0.95)),
        tokens=sum(outcome.tokens for outcome in outcomes) / n,
    )


def _by_subject(outcomes: Iterable[Outcome]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        right, n = counts.get(outcome.subject, (0, 0))
        counts[outcome.subject] = right + outcome.correct, n + 1
    return counts
