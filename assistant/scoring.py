"""Prompts → a score for each option, as letters or as texts, many prompts at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from assistant.card import Normalization, ScoringKind
from assistant.model import LanguageModel
from assistant.packing import Encoded, read
from assistant.prompt import Prompt
from ingest.errors import ModelError

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")
__all__ = [
    "Encoded", "OptionScores", "check_window", "divisors", "encode", "encode_letters", "score", "target_logprobs",
    "token_logprobs",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class OptionScores:
    """A score for each option, in nats: log-probabilities of letters, or (normalized) log-likelihoods of texts.

    `letter_mass` is how much of the next token's probability all letters hold together; None where texts were scored.
    """

    scores: tuple[float, ...]
    letter_mass: float | None = None

    def probabilities(self, temperature: float = 1.0) -> tuple[float, ...]:
        """Return the softmax of the scores divided by `temperature`; it sums to 1."""
        import numpy as np

        logits = np.asarray(self.scores, dtype=np.float64) / temperature
        weights = np.exp(logits - logits.max())
        return tuple(float(weight) for weight in weights / weights.sum())


def encode(lm: LanguageModel, prompt: Prompt) -> Encoded:
    """Tokenize each option together with the prefix and cut where they part, so that any tokenizer's joints are right.

    The shared part is never longer than the prefix's own tokens, so options that begin alike keep all their tokens.
    """
    prefix = lm.encode(prompt.prefix)
    wholes = [lm.encode(prompt.prefix + continuation) for continuation in prompt.continuations]
    shared = min(_common_prefix([prefix, *wholes]), *(len(whole) - 1 for whole in wholes))
    return Encoded(prefix[:shared], [whole[shared:] for whole in wholes])


def encode_letters(lm: LanguageModel, prompt: Prompt) -> tuple[Encoded, list[list[int]]] | None:
    """Tokenize what comes before every letter alike, and find for each option the tokens that read as its letter.

    None where the tokenizer needs several tokens for a letter.
    """
    wholes = [lm.encode(prompt.prefix + continuation) for continuation in prompt.continuations]
    shared = _common_prefix(wholes)
    if any(len(whole) != shared + 1 for whole in wholes):
        return None
    letters = [continuation.strip() for continuation in prompt.continuations]
    ids = [sorted({whole[shared], *lm.letter_tokens.get(letter, [])}) for whole, letter in zip(wholes, letters, strict=True)]
    return Encoded(wholes[0][:shared], []), ids


def score(
    lm: LanguageModel, prompts: Sequence[Prompt], scoring: ScoringKind, normalization: Normalization = "sum"
) -> list[OptionScores]:
    """Score the options of every prompt; the numbers are those of each prompt scored alone, to rounding.

    `letter`: the probability that the next token reads as the option's letter; all tokens that do count ("A", " A", ...). A
    tokenizer that needs several tokens for a letter has them scored as texts instead; what comes before every letter alike,
    such as a lone space, is read as part of the prompt.

    `cloze`: the log-likelihood of the option's text after the prefix: its sum, or the mean per token or byte, or ("pmi") how
    much the prompt raises it over what it is after the prompt's last words alone (Holtzman et al. 2021, arXiv 2104.08315).
    That of a turned prompt counts with the other sign.

    Raises ModelError where a prompt is longer than the model's window.
    """
    import torch

    with torch.inference_mode():
        if scoring == "letter":
            return _letters(lm, prompts)
        encoded = [encode(lm, prompt) for prompt in prompts]
        sums = _sums(lm, prompts, encoded)
        if normalization == "pmi":
            bare = [Prompt(prompt.ending, prompt.continuations) for prompt in prompts]
            without = _sums(lm, bare, [encode(lm, prompt) for prompt in bare])
            sums = [[a - b for a, b in zip(one, other, strict=True)] for one, other in zip(sums, without, strict=True)]
    by = [divisors(prompt, item, normalization) for prompt, item in zip(prompts, encoded, strict=True)]
    return [OptionScores(tuple(total / d for total, d in zip(row, ds, strict=True))) for row, ds in zip(sums, by, strict=True)]


def _letters(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[OptionScores]:
    import torch

    items: list[Encoded] = []
    ids: list[list[list[int]]] = []
    spelled: list[int] = []  # the prompts whose letters are several tokens
    for index, prompt in enumerate(prompts):
        found = encode_letters(lm, prompt)
        if found is None:
            spelled.append(index)
        item, of_letters = found or (Encoded([], []), [])
        items.append(item)
        ids.append(of_letters)
    whole = [index for index in range(len(prompts)) if index not in set(spelled)]

    def take(place: int, logs: "list[torch.Tensor]") -> OptionScores:
        scores = torch.stack([logs[0][0, of_letter].logsumexp(-1) for of_letter in ids[whole[place]]])
        return OptionScores(tuple(scores.tolist()), letter_mass=float(scores.exp().sum()))

    read_whole = _read(lm, [prompts[index] for index in whole], [items[index] for index in whole], take)
    results = dict(zip(whole, read_whole, strict=True))
    if spelled:
        results.update(zip(spelled, score(lm, [prompts[index] for index in spelled], "cloze", "sum"), strict=True))
    return [results[index] for index in range(len(prompts))]


def _sums(lm: LanguageModel, prompts: Sequence[Prompt], encoded: Sequence[Encoded]) -> list[list[float]]:
    """Return the log-likelihood of each option, in nats."""
    return _read(lm, prompts, encoded, lambda index, logs: [float(t.sum()) for t in target_logprobs(encoded[index], logs)])


def _read(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    take: "Callable[[int, list[torch.Tensor]], _T]",
) -> list[_T]:
    """Read the prompts, those behind the same shared beginning together, and return what `take` makes of each, in order."""
    for item in encoded:
        check_window(lm, item.longest)
    results: dict[int, _T] = {}
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].shared)
    for text, group in groupby(order, key=lambda index: prompts[index].shared):
        indices = list(group)
        items = [encoded[index] for index in indices]
        # The last token of each prompt is its own: what follows it is asked for.
        shared = _common_prefix([lm.encode(text), *(item.prefix[:-1] for item in items)]) if text else 0
        found = read(lm, items, lambda place, logs, indices=indices: take(indices[place], logs), shared)  # type: ignore[misc]
        results.update(zip(indices, found, strict=True))
    return [results[index] for index in range(len(prompts))]


def target_logprobs(item: Encoded, logs: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
    """Return the log-probabilities of each continuation's own tokens, out of those over the vocabulary (packing.read)."""
    import torch

    return [
        log.gather(-1, torch.tensor(ids, device=log.device)[:, None])[:, 0]
        for log, ids in zip(logs, item.continuations, strict=True)
    ]


def token_logprobs(lm: LanguageModel, encoded: Encoded) -> "list[torch.Tensor]":
    """Return, for each option, float32 log-probabilities of its tokens, shape (tokens of the option,).

    Gradients flow unless the caller switches them off.
    """
    return read(lm, [encoded], lambda _, logs: target_logprobs(encoded, logs))[0]


def divisors(prompt: Prompt, encoded: Encoded, normalization: Normalization) -> tuple[int, ...]:
    """Return what each option's log-likelihood is divided by: 1, its number of tokens, or its number of UTF-8 bytes.

    Where the prompt is turned, they are negative: there the least likely option is the best.
    """
    lengths = [1] * len(prompt.continuations)
    if normalization == "token":
        lengths = [len(continuation) for continuation in encoded.continuations]
    if normalization == "byte":
        lengths = [len(continuation.encode()) for continuation in prompt.continuations]
    return tuple(-length if prompt.is_turned else length for length in lengths)


def check_window(lm: LanguageModel, tokens: int) -> None:
    """Raise ModelError where `tokens` exceed what the model reads at once."""
    if tokens > lm.window:
        raise ModelError(
            f"the question takes {tokens} tokens, but {lm.name} reads {lm.window}; shorten it or use another --model"
        )


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    length = 0
    for column in zip(*sequences, strict=False):
        if any(id_ != column[0] for id_ in column):
            break
        length += 1
    return length
