"""Name, folder or file → a language model with its tokenizer and its card, quantized as asked, ready to score."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assistant.card import Card
from assistant.locate import DEFAULT, Located, locate, register, tokenizer_of
from assistant.quantization import (
    DtypeName,
    Quantization,
    bitsandbytes_config,
    number_format,
    quantized,
    stored_quantization,
)
from ingest.errors import ModelError
from ingest.hardware import limit_kernel_caches, pick_device, silence_transformers

if TYPE_CHECKING:
    import torch


@dataclass
class LanguageModel:
    """A causal language model, its tokenizer and its card. `name` is what the user called it, `folder` where it lies."""

    name: str
    model: Any
    tokenizer: Any
    card: Card
    quantization: Quantization = "none"
    folder: Path | None = None
    seconds: float = 0.0  # that loading took
    tokens_read: int = 0  # by all forward passes so far, padding included
    keeps: bool = False  # whether keys and values of what prompts share can be kept; probed by assistant.packing
    _packs: bool | None = field(default=None, repr=False)  # whether options share one row; probed with it
    _kept: Any = field(default=None, repr=False)  # the keys and values kept last

    @property
    def parameters(self) -> int:
        """How many numbers the model has learnt; quantized ones count once each, however many share a byte."""
        return int(self._size[0])

    @property
    def bytes(self) -> int:
        """How many bytes its weights take in memory."""
        return int(self._size[1])

    @property
    def dtype(self) -> "torch.dtype":
        """The number format of what is not quantized."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def summary(self) -> str:
        """The model in one line: parameters, bytes in memory, number format, device, and the seconds that loading took."""
        how = str(self.dtype).removeprefix("torch.") + ("" if self.quantization == "none" else f", {self.quantization}")
        return (
            f"{self.name}: {self.parameters / 1e6:.1f} M parameters, {self.bytes / 1e6:.0f} MB, {how}, {self.device.type}, "
            f"{self.seconds:.1f} s"
        )

    @cached_property
    def _size(self) -> tuple[int, int]:
        count = size = 0
        for weight in (*self.model.parameters(), *self.model.buffers()):
            state = getattr(weight, "quant_state", None)
            count += state.shape.numel() if state is not None else weight.numel()
            for part in (weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,):
                size += part.numel() * part.element_size()
        return count, size

    @property
    def device(self) -> "torch.device":
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def window(self) -> int:
        """How many tokens the model reads at most."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 2048)

    @cached_property
    def _leading_ids(self) -> list[int]:
        """The marks that the tokenizer puts before a text (a BOS token, or nothing)."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and bos in self.tokenizer("").input_ids[:1] else []

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, with the tokenizer's leading marks and without trailing ones."""
        return [*self._leading_ids, *self.tokenizer(text, add_special_tokens=False).input_ids]

    @cached_property
    def letter_tokens(self) -> dict[str, list[int]]:
        """Every token of the vocabulary that reads as a single letter A to J, white space around it aside."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        special = set(self.tokenizer.all_special_ids)
        found: dict[str, list[int]] = {}
        for id_, token in enumerate(tokens):
            # Decoding is slow; only short tokens with one of the letters in them can qualify ("A", "ĠA", "▁A", "<0x41>").
            if token and len(token) <= 6 and id_ not in special:
                text = self.tokenizer.decode([id_]).strip()
                if len(text) == 1 and text in "ABCDEFGHIJ":
                    found.setdefault(text, []).append(id_)
        return found


def load_model(
    name: str | None = None,
    *,
    quantize: Quantization = "none",
    dtype: DtypeName = "auto",
    tokenizer: str | None = None,
    on_status: Callable[[str], None] = lambda _: None,
) -> LanguageModel:
    """Load a language model; `on_status` is told about steps that take long.

    `name` is None for the model that answers by default, its name, the embedded base's, a folder with safetensors weights, a
    folder with a PEFT adapter (its base is found by the adapter's record and checked against it), a GGUF file, or a model of
    the Hub. `quantize` is "int8" (LLM.int8) or "nf4" by bitsandbytes, or "int8-dynamic" by torchao (CPU only: weights in 8
    bits, activations as they come); a folder that holds quantized weights is loaded as it is. `dtype` "auto" is the fastest
    that the device computes natively.
    `tokenizer`, a folder or a Hub name, stands in for the model's own and for the one that its card names. Raises ModelError
    that says what is missing and how to get it.
    """
    started = time.perf_counter()
    lm = _load(locate(name, on_status, tokenizer), quantize, dtype)
    lm.seconds = time.perf_counter() - started
    return lm


def _load(found: Located, quantize: Quantization, dtype: DtypeName) -> LanguageModel:
    from transformers import AutoModelForCausalLM

    limit_kernel_caches()
    silence_transformers()
    register(found.folder)
    device = pick_device()
    stored = stored_quantization(found.folder)
    if stored != "none" and quantize != "none":
        raise ModelError(f"the weights of {found.name} are quantized already ({stored}); leave out --quantize {quantize}")
    if quantize == "int8-dynamic" and device != "cpu":
        raise ModelError("int8-dynamic computes on a CPU only; use --quantize int8 on a GPU")
    number = number_format(dtype, device, quantize)
    extra: dict[str, Any] = {}
    if quantize in ("int8", "nf4"):
        extra = {"quantization_config": bitsandbytes_config(quantize, number), "device_map": {"": device}}
    elif stored != "none":
        bitsandbytes_config(stored, number)  # says so where it is not installed
        extra = {"device_map": {"": device}}
    tokenizer = tokenizer_of(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bitsandbytes, a line for each layer
            model = AutoModelForCausalLM.from_pretrained(
                found.folder, dtype=number, use_safetensors=True, local_files_only=True, trust_remote_code=False, **extra
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = f"use a folder with safetensors weights or '{DEFAULT}'"
        raise ModelError(f"the model in {found.folder} cannot be loaded; {remedy} ({reason})") from error
    known = model.get_input_embeddings().weight.shape[0]
    if found.tokenizer != found.folder and len(tokenizer) > known:
        raise ModelError(
            f"the tokenizer in {found.tokenizer} has {len(tokenizer)} tokens, but {found.name} knows {known}; "
            "name the tokenizer that the model was trained with"
        )
    if not extra:
        model = model.to(device)
    kind = quantize if stored == "none" else stored
    model = quantized(model.eval(), kind, found.name)
    if stored == "nf4":
        for layer in model.modules():
            if hasattr(layer, "compute_dtype"):
                layer.compute_dtype = number  # not that of the machine which saved it
    return LanguageModel(found.name, model, tokenizer, found.card, kind, found.folder)
