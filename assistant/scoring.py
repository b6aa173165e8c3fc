"""Prompt → a score for each option, as letters or as texts, in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assistant.model import LanguageModel, Normalization
from assistant.prompt import Prompt
from ingest.errors import ModelError

if TYPE_CHECKING:
    import torch


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


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt's shared beginning, and of each option's own rest (never empty)."""

    prefix: list[int]
    continuations: list[list[int]]

    @property
    def longest(self) -> int:
        """The number of tokens that one option is read with, at most."""
        return len(self.prefix) + max(map(len, self.continuations))


def encode(lm: LanguageModel, prompt: Prompt) -> Encoded:
    """Tokenize each option together with the prefix and cut where they part, so that any tokenizer's joints are right.

    The shared part is never longer than the prefix's own tokens, so options that begin alike keep all their tokens.
    """
    prefix = lm.encode(prompt.prefix)
    wholes = [lm.encode(prompt.prefix + continuation) for continuation in prompt.continuations]
    shared = min(_common_prefix([prefix, *wholes]), *(len(whole) - 1 for whole in wholes))
    return Encoded(prefix[:shared], [whole[shared:] for whole in wholes])


def score_letters(lm: LanguageModel, prompt: Prompt) -> OptionScores:
    """Score each option by the probability that the next token reads as its letter.

    All tokens that read as the letter count ("A", " A", ...). A tokenizer that needs several tokens for a letter has them
    scored as texts instead; what comes before every letter alike, such as a lone space, is read as part of the prompt.
    """
    import torch

    letters = [continuation.strip() for continuation in prompt.continuations]
    wholes = [lm.encode(prompt.prefix + continuation) for continuation in prompt.continuations]
    shared = _common_prefix(wholes)
    anchors = [whole[shared:] for whole in wholes]
    if any(len(anchor) != 1 for anchor in anchors):
        return score_texts(lm, prompt, "sum")
    ids = [{anchor[0], *lm.letter_tokens.get(letter, [])} for anchor, letter in zip(anchors, letters, strict=True)]
    _check_window(lm, shared)
    with torch.inference_mode():
        logits = _logits(lm.model, torch.tensor([wholes[0][:shared]], device=lm.device), [shared - 1], {})[0]
    logs = logits.log_softmax(-1)
    scores = torch.stack([logs[sorted(of_letter)].logsumexp(-1) for of_letter in ids])
    return OptionScores(tuple(scores.tolist()), letter_mass=float(scores.exp().sum()))


def score_texts(lm: LanguageModel, prompt: Prompt, normalization: Normalization) -> OptionScores:
    """Score each option by the log-likelihood of its text after the prefix: its sum, or the mean per token or byte."""
    import torch

    encoded = encode(lm, prompt)
    _check_window(lm, encoded.longest)
    with torch.inference_mode():
        tokens = token_logprobs(lm, encoded)
    sums = [float(of_option.sum()) for of_option in tokens]
    by = divisors(prompt, encoded, normalization)
    return OptionScores(tuple(total / divisor for total, divisor in zip(sums, by, strict=True)))


def divisors(prompt: Prompt, encoded: Encoded, normalization: Normalization) -> tuple[int, ...]:
    """Return what each option's log-likelihood is divided by: 1, its number of tokens, or its number of UTF-8 bytes."""
    if normalization == "token":
        return tuple(len(continuation) for continuation in encoded.continuations)
    if normalization == "byte":
        return tuple(len(continuation.encode()) for continuation in prompt.continuations)
    return (1,) * len(prompt.continuations)


def token_logprobs(lm: LanguageModel, encoded: Encoded) -> "list[torch.Tensor]":
    """Return, for each option, float32 log-probabilities of its tokens, shape (tokens of the option,).

    All options are read in one forward pass: packed behind a single copy of the prefix where the model's attention takes
    a mask for that, else as the rows of a batch. Gradients flow unless the caller switches them off.
    """
    if lm._packs is None:
        lm._packs = _packing_works(lm)
    return _packed(lm.model, encoded) if lm._packs else _batched(lm.model, encoded)


def _packed(model: Any, encoded: Encoded) -> "list[torch.Tensor]":
    """Read prefix + option 1 + option 2 + ... as one row, where each option sees the prefix and itself only.

    Positions restart after the prefix for every option, so each is read as if it stood there alone.
    """
    import torch

    device = model.device
    prefix, lengths = len(encoded.prefix), [len(c) for c in encoded.continuations]
    row = [*encoded.prefix, *(id_ for continuation in encoded.continuations for id_ in continuation)]
    owner = torch.tensor([0] * prefix + [i for i, n in enumerate(lengths, start=1) for _ in range(n)], device=device)
    positions = torch.tensor([*range(prefix), *(prefix + k for n in lengths for k in range(n))], device=device)
    visible = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    visible &= torch.ones(len(row), len(row), dtype=torch.bool, device=device).tril()
    # Added to the attention scores; every implementation reads this form, not all read a boolean one.
    dtype = model.get_input_embeddings().weight.dtype
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)

    # The token before an option's first is the prefix's last; before any other, the one before it in the row.
    wanted: list[int] = []
    start = prefix
    for n in lengths:
        wanted += [prefix - 1, *range(start, start + n - 1)]
        start += n
    keep = sorted(set(wanted))
    logits = _logits(
        model,
        torch.tensor([row], device=device),
        keep,
        {"attention_mask": mask[None, None], "position_ids": positions[None]},
    )
    at = {position: index for index, position in enumerate(keep)}
    logs = logits.log_softmax(-1)[torch.tensor([at[position] for position in wanted], device=device)]
    targets = torch.tensor(row[prefix:], device=device)
    return list(torch.split(logs.gather(-1, targets[:, None])[:, 0], lengths))


def _batched(model: Any, encoded: Encoded) -> "list[torch.Tensor]":
    """Read each option behind its own copy of the prefix, as rows of one batch padded on the right."""
    import torch

    rows = [encoded.prefix + continuation for continuation in encoded.continuations]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    logs = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    first = len(encoded.prefix) - 1
    return [
        log[first : first + len(c)].gather(-1, torch.tensor(c, device=model.device)[:, None])[:, 0]
        for log, c in zip(logs, encoded.continuations, strict=True)
    ]


def _logits(model: Any, ids: "torch.Tensor", keep: list[int], extra: dict[str, Any]) -> "torch.Tensor":
    """Return float32 logits of the one row `ids` at the positions `keep`, shape (len(keep), vocabulary)."""
    import inspect

    import torch

    positions = torch.tensor(keep, device=ids.device)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:  # only these reach the vocabulary head
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=positions, **extra).logits[0]
    else:
        logits = model(input_ids=ids, use_cache=False, **extra).logits[0, positions]
    return logits.float()  # type: ignore[no-any-return]


def _packing_works(lm: LanguageModel) -> bool:
    """Try both readings on a few tokens: an attention that ignores or refuses the mask shows at once."""
    import torch

    ids = [id_ for id_ in range(len(lm.tokenizer)) if id_ not in lm.tokenizer.all_special_ids][:64]
    if len(ids) < 8:
        return False
    sample = Encoded([*lm._leading_ids, *ids[::4]], [ids[1::4][:3], ids[2::4][:5], ids[3::4][:1]])
    with torch.inference_mode():
        expected = torch.cat(_batched(lm.model, sample))
        try:
            actual = torch.cat(_packed(lm.model, sample))
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
    exact = lm.model.get_input_embeddings().weight.dtype == torch.float32
    return bool((actual - expected).abs().max() <= (1e-3 if exact else 0.2))


def _check_window(lm: LanguageModel, tokens: int) -> None:
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
