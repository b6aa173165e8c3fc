"""Number formats: which a device computes in, and weights in 8 or 4 bits by bitsandbytes or torchao."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assistant.merge import keep_layout
from ingest.errors import ModelError
from ingest.hardware import pick_dtype

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "nf4", "int8-dynamic"]
DtypeName = Literal["auto", "bf16", "fp16", "fp32"]


def stored_quantization(folder: Path) -> Quantization:
    """Return how bitsandbytes has quantized the weights that a model's folder holds, "none" where it has not."""
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
        if record.get("quant_method") != "bitsandbytes":
            return "none"
        return "int8" if record.get("load_in_8bit") else "nf4"
    except (OSError, ValueError, AttributeError):
        return "none"  # what is wrong with the folder is said by who loads it


def number_format(name: DtypeName, device: str, quantize: Quantization) -> "torch.dtype":
    """Return the number format to compute in; raises ModelError where the device has none of that name."""
    import torch

    if name == "auto":
        # Dynamic quantization computes between its products in single precision.
        return torch.float32 if quantize == "int8-dynamic" else pick_dtype(device)
    if name == "fp16" and device == "cpu":
        raise ModelError("fp16 is no format that CPUs compute in; use --dtype auto, bf16 or fp32")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


def bitsandbytes_config(quantize: str, number: "torch.dtype") -> Any:
    """Return transformers' settings for weights in "int8" or "nf4"; raises ModelError where bitsandbytes is missing."""
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise ModelError(f"--quantize {quantize} needs bitsandbytes; run: pip install 'mcqa-assistant[quantize]'") from error
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=number
    )


def _torchao() -> tuple[Any, Any]:
    """Return what quantizes a model in place, and its settings: a scale for each row of weights, and for each token.

    PyTorch's own dynamic quantization has one scale for a whole batch: a few large activations ruin the others, and results
    depend on what is read together.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise ModelError("--quantize int8-dynamic needs torchao; run: pip install 'mcqa-assistant[quantize]'") from error
    return quantize_, Int8DynamicActivationInt8WeightConfig


def quantized(model: Any, quantize: Quantization, name: str) -> Any:
    """Finish the quantization that was asked for; raises ModelError where nothing was quantized."""
    import torch

    if quantize == "none":
        return model
    if quantize == "int8-dynamic":
        quantize_, config = _torchao()
        quantize_(model, config())
        kinds: tuple[type, ...] = (torch.nn.Linear,)
    else:
        from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

        kinds = (Linear8bitLt,) if quantize == "int8" else (Linear4bit,)
    head = model.get_output_embeddings()  # alone, it is no quantized model
    layers = [layer for layer in model.modules() if isinstance(layer, kinds) and layer is not head]
    if quantize == "int8-dynamic":
        layers = [layer for layer in layers if hasattr(layer, "weight") and hasattr(layer.weight, "qdata")]
    if not layers:
        raise ModelError(f"--quantize {quantize} found nothing to quantize in {name}; use --quantize none")
    keep_layout(model)
    return model
