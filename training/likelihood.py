"""Answers to a prompt → how likely a model finds them; the prompt is read once for all of its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistant.model import LanguageModel
from assistant.packing import Encoded, read
from assistant.scoring import target_logprobs
from training.pairs import Message
from training.recipe import Format
from training.render import render, tokenize

if TYPE_CHECKING:
    import torch

_TOGETHER = 32  # prompts between two words of progress


@dataclass(frozen=True, slots=True)
class Likelihood:
    """An answer's log-likelihood in nats, and the number of its tokens."""

    nats: float
    tokens: int


def encode(
    lm: LanguageModel, prompt: Sequence[Message], answers: Sequence[str], form: Format, max_length: int
) -> Encoded | None:
    """Return the tokens of a prompt and of each answer as training reads them, the token that ends an answer included.

    Answers are cut where they end after `max_length` tokens or the model's window; None where the prompt alone fills these.
    Where tokens join differently with one answer, all begin where the first differs.
    """
    pairs = [tokenize(render(prompt, answer, form, lm.tokenizer), lm.tokenizer) for answer in answers]
    shared = min(len(before) for before, _ in pairs)
    room = min(max_length, lm.window) - shared
    if shared == 0 or room <= 0:
        return None
    wholes = [before + after for before, after in pairs]
    return Encoded(wholes[0][:shared], [whole[shared : shared + room] for whole in wholes])


def likelihoods(
    lm: LanguageModel, encoded: Sequence[Encoded], on_progress: Callable[[int], None] = lambda _: None
) -> list[tuple[Likelihood, ...]]:
    """Return the likelihood of each answer of each item, in order; `on_progress` is told how many more items are done."""
    import torch

    results: dict[int, tuple[Likelihood, ...]] = {}
    # The longest first: if memory does not suffice, that shows at once.
    order = sorted(range(len(encoded)), key=lambda index: -encoded[index].packed)
    with torch.inference_mode():
        for start in range(0, len(order), _TOGETHER):
            indices = order[start : start + _TOGETHER]
            items = [encoded[index] for index in indices]
            found = read(lm, items, lambda place, logs, items=items: _taken(items[place], logs))  # type: ignore[misc]
            results.update(zip(indices, found, strict=True))
            on_progress(len(indices))
    return [results[index] for index in range(len(encoded))]


def _taken(item: Encoded, logs: "Sequence[torch.Tensor]") -> tuple[Likelihood, ...]:
    return tuple(Likelihood(float(of_answer.double().sum()), len(of_answer)) for of_answer in target_logprobs(item, logs))
