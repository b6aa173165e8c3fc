"""Attention over a packed row, chunk by chunk: what a mask would hide is not computed.

A row holds several questions, and none sees another. Full attention with a mask computes all pairs of tokens and throws most of
them away; on a processor that is half of a forward pass. Here each chunk of a question attends to what is kept in front of
the row and to its own question up to its end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NAME = "mcqa_packed"
_CHUNK = 128  # tokens; its scores fit a core's cache


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens `first` to `end` of a row (end exclusive), whose question begins at `start`.

    `mask` is what they see of the kept tokens and of their question up to `end`, shape (end - first, kept + end - start), added
    to the scores; of the kept tokens they see all.
    """

    start: int
    first: int
    end: int
    mask: "torch.Tensor"


def enable(model: Any) -> None:
    """Let `model` attend by chunks where `mark` says so, and as before elsewhere; nothing where it cannot."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = model.config
    if model.device.type != "cpu" or getattr(config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def disable(model: Any) -> None:
    """Undo `enable`: what is computed with gradients and without is then the same to the last bit, also in 16 bits."""
    if getattr(model.config, "_attn_implementation", None) == _NAME:
        model.set_attn_implementation("sdpa")


def mark(mask: "torch.Tensor", questions: Iterable[tuple[int, int]], kept: int) -> None:
    """Note on a row's `mask`, shape (1, 1, tokens, kept + tokens), how to take it apart; `questions` are (start, end) in it."""
    import torch

    plain = mask[0, 0]
    mask.chunks = [  # type: ignore[attr-defined]
        Chunk(start, first, stop, torch.cat([plain[first:stop, :kept], plain[first:stop, kept + start : kept + stop]], 1))
        for start, end in questions
        for first in range(start, end, _CHUNK)
        for stop in [min(end, first + _CHUNK)]
    ]


def _attend(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    **extra: Any,
) -> "tuple[torch.Tensor, None]":
    """Attend as transformers' interface for attention asks: tensors of shape (1, heads, tokens, dimension)."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    chunks: list[Chunk] | None = getattr(attention_mask, "chunks", None)
    if chunks is None:
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **extra
        )
        return whole
    heads, tokens, size = query.shape[1:]
    groups = key.shape[1]  # several heads may share one head of keys
    kept = key.shape[2] - tokens
    scale = size**-0.5 if scaling is None else scaling
    exact = query.dtype == torch.float32
    scaled = query if exact else query * scale
    parts: list[torch.Tensor] = []
    for chunk in chunks:
        own = slice(kept + chunk.start, kept + chunk.end)
        keys, values = key[:, :, own], value[:, :, own]
        if kept:
            keys, values = torch.cat([key[:, :, :kept], keys], 2), torch.cat([value[:, :, :kept], values], 2)
        queries = scaled[:, :, chunk.first : chunk.end]
        if exact:
            part = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=chunk.mask, scale=scale, enable_gqa=groups != heads
            )[0]
        else:
            # PyTorch's fused attention computes in single precision on a processor; its matrix products do not.
            scores = queries.reshape(groups, -1, size) @ keys[0].transpose(1, 2)
            scores = scores.view(heads, -1, scores.shape[-1])
            scores[..., kept:] += chunk.mask[:, kept:]
            part = (scores.softmax(-1).view(groups, -1, scores.shape[-1]) @ values[0]).view(heads, -1, value.shape[3])
        parts.append(part.transpose(0, 1))
    return torch.cat(parts)[None], None
