"""Many short readings → few forward passes: what texts share is read once, and the rest is packed into rows.

A question is one prefix and the options that may follow it. Options are packed behind a single copy of their prefix, several
questions into one row, and all of them behind the keys and values of what the questions share (an instruction, solved
examples), which are computed once and kept. A mask lets each option see what is shared, its own prefix and itself; positions
restart where it would stand alone. So every number is that of reading the option by itself, to rounding.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from assistant import attention
from assistant.model import LanguageModel
from ingest.hardware import core_pool

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")
ROW_TOKENS = 768  # a longer row gains nothing
_EXACT = 1e-3  # nats; what single precision may differ by
_ROUNDED = 0.4  # standard deviations over the vocabulary, on average: 8 bits reach 0.3, an ignored mask 0.7
_WORTH_KEEPING = 16  # tokens; keeping fewer costs more than reading them again


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt's shared beginning, and of each option's own rest (never empty).

    Without continuations, only what follows the prefix is asked for.
    """

    prefix: list[int]
    continuations: list[list[int]]

    @property
    def longest(self) -> int:
        """The number of tokens that one option is read with, at most."""
        return len(self.prefix) + max(map(len, self.continuations), default=0)

    @property
    def packed(self) -> int:
        """The number of tokens behind one copy of the prefix."""
        return len(self.prefix) + sum(map(len, self.continuations))


@dataclass(slots=True)
class Kept:
    """The keys and values of the tokens `ids`, read once for all questions that begin with them."""

    ids: list[int]
    cache: Any = field(repr=False)

    def copy(self) -> Any:
        """Return a cache that can grow: layers add to it by putting longer tensors in the place of these, which stay."""
        grown = copy(self.cache)
        grown.layers = [copy(layer) for layer in self.cache.layers]
        return grown


def read(
    lm: LanguageModel, items: Sequence[Encoded], take: "Callable[[int, list[torch.Tensor]], _T]", shared: int = 0
) -> list[_T]:
    """Return for each item what `take` makes of its index and its distributions.

    These are float32 log-probabilities over the vocabulary: one tensor of shape (1, vocabulary) where the item has no
    continuations, else one for each, of shape (its tokens, vocabulary), row k being what is expected in the place of its
    token k. They are given to `take` row by row, because all together would be large. `shared` is how many first tokens all
    items have in common. Gradients flow unless the caller switches them off, and then nothing is kept.
    """
    import torch

    if lm._packs is None:
        lm._packs = packing_works(lm)
    # Packed rows are read with full attention; where a text is longer than the model's sliding window, that differs.
    sliding = getattr(lm.model.config, "sliding_window", None)
    if not lm._packs or (sliding and max(item.longest for item in items) > sliding):
        return [take(index, logs) for index, logs in enumerate(_in_batches(lm, items))]
    learning = torch.is_grad_enabled()
    kept = _kept(lm, items[0].prefix[:shared], len(items)) if shared >= _WORTH_KEEPING and not learning else None
    lengths = [item.packed - (len(kept.ids) if kept else 0) for item in items]
    lanes = torch.get_num_threads() if lm.device.type == "cpu" and not learning else 1
    packed = rows(lengths, ROW_TOKENS, lanes)
    lm.tokens_read += sum(lengths)

    kind = lm.device.type
    cast, number = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def read_one(row: list[int]) -> "list[tuple[int, _T]]":
        with torch.inference_mode(not learning), torch.autocast(kind, number, cast):  # a thread begins without them
            logs_of_items = read_row(lm, [items[index] for index in row], kept)
            return [(index, take(index, logs)) for index, logs in zip(row, logs_of_items, strict=True)]

    # A core reads a row by itself faster than all cores together, which wait for each other after every operation.
    run = core_pool().map if lanes > 1 and len(packed) > 1 else map
    results = dict(pair for row in run(read_one, packed) for pair in row)
    return [results[index] for index in range(len(items))]


def rows(lengths: Sequence[int], budget: int, lanes: int = 1) -> list[list[int]]:
    """Return the indices of `lengths` in rows of about `budget` together, as many for each of `lanes` and about equally long.

    The longest go first, each into the shortest row; so without its last and shortest entry, no row exceeds the budget.
    """
    count = lanes * -(-sum(lengths) // (budget * lanes))
    filled = [(0, place) for place in range(max(1, min(count, len(lengths))))]
    found: list[list[int]] = [[] for _ in filled]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        used, place = filled[0]
        found[place].append(index)
        heapreplace(filled, (used + lengths[index], place))
    return [row for row in found if row]


def read_row(lm: LanguageModel, items: Sequence[Encoded], kept: Kept | None = None) -> "Iterator[list[torch.Tensor]]":
    """Read all items in one forward pass, as one row behind what is `kept`; yields the distributions of each."""
    import torch

    skipped = len(kept.ids) if kept else 0
    ids: list[int] = []
    question: list[int] = []  # which item a token belongs to
    option: list[int] = []  # which option of it, 0 for the prefix
    positions: list[int] = []
    spans: list[tuple[int, int]] = []  # of the items
    wanted: list[list[list[int]]] = []  # places in the row whose distributions are asked for
    for number, item in enumerate(items):
        prefix = item.prefix[skipped:]
        start, length = len(ids), len(prefix)
        ids += prefix
        option += [0] * length
        positions += range(skipped, skipped + length)
        last = start + length - 1
        places = [] if item.continuations else [[last]]
        for name, continuation in enumerate(item.continuations, start=1):
            places.append([last, *range(len(ids), len(ids) + len(continuation) - 1)])
            ids += continuation
            option += [name] * len(continuation)
            positions += range(skipped + length, skipped + length + len(continuation))
        question += [number] * (len(ids) - start)
        spans.append((start, len(ids)))
        wanted.append(places)
    device, dtype = lm.device, lm.dtype
    owner, part = np.asarray(question), np.asarray(option)
    visible = (owner[:, None] == owner) & ((part == 0) | (part[:, None] == part))
    visible = np.concatenate([np.ones((len(ids), skipped), dtype=bool), np.tril(visible)], axis=1)
    # Added to the attention scores; every implementation reads this form, not all read a boolean one.
    mask = torch.zeros((1, 1, *visible.shape), dtype=dtype)
    mask = mask.masked_fill_(torch.from_numpy(~visible), torch.finfo(dtype).min).to(device)
    attention.mark(mask, spans, skipped)
    keep = sorted({place for places in wanted for of_option in places for place in of_option})
    extra: dict[str, Any] = {"attention_mask": mask, "position_ids": torch.tensor([positions], device=device)}
    if kept:
        extra |= {"past_key_values": kept.copy(), "use_cache": True}
    logits = _logits(lm, torch.tensor([ids], device=device), keep, extra)
    at = {place: index for index, place in enumerate(keep)}
    for places in wanted:  # one after the other: in single precision, all together would be large
        yield [logits[[at[place] for place in of_option]].float().log_softmax(-1) for of_option in places]


def _kept(lm: LanguageModel, ids: list[int], readers: int) -> Kept | None:
    """Return the keys and values of `ids`, from the last time if they are the same; None where keeping does not pay."""
    import torch

    found: Kept | None = lm._kept
    if found is not None and found.ids == ids:
        return found
    if readers < 2 or not lm.keeps:
        return None
    lm._kept = None  # the old ones go before the new ones come
    lm.tokens_read += len(ids)
    result = lm.model(input_ids=torch.tensor([ids], device=lm.device), use_cache=True, **_keep_logits(lm.model, [len(ids) - 1]))
    found = lm._kept = Kept(ids, result.past_key_values)
    return found


def _in_batches(lm: LanguageModel, items: Sequence[Encoded]) -> "Iterator[list[torch.Tensor]]":
    """Read each option behind its own copy of the prefix, as rows of one batch padded on the right."""
    import torch

    for item in items:
        texts = [item.prefix + continuation for continuation in item.continuations] or [item.prefix]
        width = max(map(len, texts))
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=lm.device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=lm.device)
        lm.tokens_read += ids.numel()
        first = len(item.prefix) - 1
        logits = lm.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, first:].float()
        counts = [len(continuation) for continuation in item.continuations] or [1]
        yield [row[:count].log_softmax(-1) for row, count in zip(logits, counts, strict=True)]


def _logits(lm: LanguageModel, ids: "torch.Tensor", keep: list[int], extra: dict[str, Any]) -> "torch.Tensor":
    """Return logits of the one row `ids` at the positions `keep`, shape (len(keep), vocabulary)."""
    some = _keep_logits(lm.model, keep)
    logits = lm.model(input_ids=ids, **{"use_cache": False, **extra}, **some).logits[0]
    return logits if some else logits[keep]  # type: ignore[no-any-return]


def _keep_logits(model: Any, keep: list[int]) -> dict[str, Any]:
    """Return the argument by which only the positions `keep` reach the vocabulary head, where the model has it."""
    import torch

    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return {}
    return {"logits_to_keep": torch.tensor(keep, device=model.device)}


def packing_works(lm: LanguageModel) -> bool:
    """Try rows and batches on a few tokens: an attention that ignores or refuses the mask shows at once.

    Sets `lm.keeps` to whether keys and values can be kept, too.
    """
    import torch

    ids = [id_ for id_ in range(len(lm.tokenizer)) if id_ not in lm.tokenizer.all_special_ids][:96]
    lm.keeps = False
    if len(ids) < 48:
        return False
    attention.enable(lm.model)
    shared = [*lm._leading_ids, *ids[:20]]
    sample = [Encoded([*shared, *ids[20:28]], [ids[28:31], ids[31:36], ids[36:37]]), Encoded([*shared, *ids[40:43]], [])]
    read_before = lm.tokens_read
    with torch.inference_mode():
        expected = [log for item in _in_batches(lm, sample) for log in item]

        def agrees(*, keep: bool) -> bool:
            try:
                actual = [log for item in read_row(lm, sample, _kept(lm, shared, 2) if keep else None) for log in item]
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
                return False
            if lm.dtype == torch.float32 and lm.quantization == "none":
                return all(float((a - b).abs().max()) <= _EXACT for a, b in zip(actual, expected, strict=True))
            # Rounding moves single numbers far in 16 bits, but not all of them; a mask that is ignored does.
            return all(float((a - b).abs().mean()) <= _ROUNDED * float(b.std()) for a, b in zip(actual, expected, strict=True))

        lm.keeps = works = agrees(keep=False)
        if works:
            lm.keeps = agrees(keep=True) and agrees(keep=True)  # the second time, what is kept must be as it was
    lm._kept, lm.tokens_read = None, read_before
    return works
