"""A model with adapters, on a base that may be quantized → a plain model in 16 bits, the adapters merged."""

import warnings
from typing import TYPE_CHECKING, Any

from ingest.errors import ModelError

if TYPE_CHECKING:
    import torch

_QUANTIZED = ("Params4bit", "Int8Params")  # the kinds of weights that bitsandbytes has


def merge(model: Any, dtype: "torch.dtype | None" = None) -> Any:
    """Return the plain model that computes what `model` does: quantized layers dequantized, active adapters merged into them.

    An adapter learnt to correct the base that it was trained on. Where that is quantized, it is not the model that it was made
    from, but what its 8 or 4 bits stand for, and into that the adapter is merged. Each sum is formed in single precision and
    rounded once to `dtype`: float16 unless another is given, as small updates survive its 11 binary digits better than the 8
    of bfloat16.

    LoRA and DoRA merge over any base, other adapters over one that is not quantized; without adapters, a quantized model is
    only dequantized. `model` is used up. Raises ModelError where an adapter of another kind stands on a quantized layer, or a
    weight is no finite number afterwards.
    """
    import torch

    dtype = dtype or torch.float16
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT, a line for each layer
        if hasattr(model, "peft_config"):
            _merge_layers(model, dtype)
            model = model.merge_and_unload()
        for name, layer in list(model.named_modules()):
            if is_quantized(layer):
                model.set_submodule(name, _plain(layer, dequantized(layer), dtype))
    _forget_quantization(model)
    model = model.to(dtype)
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ModelError(
            f"after merging, {len(broken)} tensors hold numbers that are not finite in {dtype} ({broken[0]} is one); "
            "if training diverged, lower its learning rate"
        )
    return model


def is_quantized(layer: Any) -> bool:
    """Say whether bitsandbytes holds the layer's own weight in 4 or 8 bits."""
    return type(getattr(layer, "weight", None)).__name__ in _QUANTIZED


def keep_layout(model: Any) -> None:
    """Keep bitsandbytes 0.50 from repacking 4-bit weights; to be called before the first forward pass.

    On a CPU with AVX512-BF16 it does so in place at the first pass in evaluation mode, and whatever reads them as weights
    afterwards (gradients, DoRA's norms, merging, saving) gets wrong numbers.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def dequantized(layer: Any) -> "torch.Tensor":
    """Return what the weights of a quantized layer stand for, in single precision, shape (outputs, inputs).

    Raises ValueError where bitsandbytes has repacked them: the model was read before `keep_layout`.
    """
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    weight = layer.weight
    if type(weight).__name__ == "Int8Params":
        # The scales move from the weight to the layer's state with the first forward pass.
        scales = layer.state.SCB if layer.state.SCB is not None else weight.SCB
        found: torch.Tensor = int8_vectorwise_dequant(weight.data, scales.to(weight.device)).float()
        return found
    if getattr(weight.quant_state, "packing_format_for_cpu", False):
        raise ValueError("bitsandbytes has repacked the weights; call keep_layout before the first forward pass")
    plain: torch.Tensor = dequantize_4bit(weight.data, weight.quant_state).float()
    return plain


def _merge_layers(model: Any, dtype: "torch.dtype") -> None:
    """Merge each adapted layer by itself, so that single precision is needed for one at a time only."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if not isinstance(layer, BaseTunerLayer):
            continue
        base = layer.get_base_layer()
        if not is_quantized(base):
            layer.float()
            layer.merge()
            base.to(dtype)
        elif isinstance(layer, LoraLayer):
            weight = dequantized(base)
            for adapter in layer.active_adapters:
                if adapter in layer.lora_A:
                    weight = _adapted(layer, adapter, weight)
            model.set_submodule(name, _plain(base, weight, dtype))
        else:
            raise _not_merged(type(layer).__name__)


def _adapted(layer: Any, adapter: str, weight: "torch.Tensor") -> "torch.Tensor":
    """Return the weight that an adapter makes of `weight`, both of shape (outputs, inputs).

    LoRA adds scaling · B A (Hu et al. 2021, arXiv 2106.09685, section 4.1). DoRA scales the rows of that sum to lengths that it
    learnt (Liu et al. 2024, arXiv 2402.09353, equation 5).
    """
    variant = layer.lora_variant.get(adapter)
    if layer.lora_bias[adapter]:
        raise _not_merged("LoRA with biases")
    if variant is not None and adapter not in layer.lora_magnitude_vector:
        raise _not_merged(type(variant).__name__)
    one, other = layer.lora_B[adapter].weight.float(), layer.lora_A[adapter].weight.float()
    total: torch.Tensor = weight + layer.scaling[adapter] * (one @ other)
    if variant is None:
        return total
    lengths: torch.Tensor = layer.lora_magnitude_vector[adapter].weight.float()
    scales: torch.Tensor = lengths / total.norm(dim=1)
    return total * scales[:, None]


def _not_merged(kind: str) -> ModelError:
    return ModelError(f"an adapter of the kind {kind} cannot be merged into a quantized base; use plain LoRA or DoRA")


def _plain(quantized: Any, weight: "torch.Tensor", dtype: "torch.dtype") -> Any:
    """Return a layer of the kind that `quantized` was before, with its bias and this weight (outputs, inputs) in `dtype`."""
    import torch
    from transformers.pytorch_utils import Conv1D

    outputs, inputs = weight.shape
    bias = quantized.bias
    with torch.device("meta"):
        if getattr(quantized, "source_cls", torch.nn.Linear) is Conv1D:  # GPT-2's, whose weight is (inputs, outputs)
            layer: Any = Conv1D(outputs, inputs)
            weight = weight.T
        else:
            layer = torch.nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight = torch.nn.Parameter(weight.to(dtype).contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return layer.train(quantized.training)


def _forget_quantization(model: Any) -> None:
    """Remove what says that the model is quantized, which it would be saved with."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if getattr(model, name, False):
            setattr(model, name, False)
