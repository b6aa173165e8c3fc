"""A tuned model and the one it was made from → an adapter that holds the difference, small enough to hand on."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assistant.locate import EMBEDDED, fingerprint
from assistant.model import load_model
from ingest.errors import ModelError, UserError
from ingest.home import replaced_folder
from training.loop import write_card

if TYPE_CHECKING:
    import torch

_SAME = 4e-3  # of a tensor's length: what rounding to bfloat16 changes, twice


def extract(
    tuned: str, base: str | None, rank: int, output: Path, on_status: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write a LoRA adapter of `rank` in 16 bits that makes of `base` what `tuned` is, as nearly as that rank can.

    Each linear layer's difference is cut to its largest singular values, which is the nearest matrix of that rank (Eckart and
    Young 1936). Models are what `load_model` takes; `base` None is the embedded one, untuned. Several stages of adapters are
    held whole by the sum of their ranks. Returns, in JSON's types, the layers, the bytes, and `left`, the share of the
    difference (by squares, rounding included) that was cut off.
    Raises UserError where `output` exists, ModelError where the models differ in what such an adapter does not hold.
    """
    import torch
    from safetensors.torch import save_file

    if output.exists():
        raise UserError(f"{output} already exists; choose another --output")
    target, start = (load_model(name, dtype="fp32", on_status=on_status) for name in (tuned, base or EMBEDDED))
    on_status("taking the difference apart")
    layers = _differing(target.model, start.model, target.name, start.name)
    tensors: dict[str, torch.Tensor] = {}
    cut = whole = 0.0
    for name, difference in layers.items():
        values = torch.linalg.svd(difference, full_matrices=False)
        root = values.S[:rank].sqrt()
        pair = {"A": root[:, None] * values.Vh[:rank], "B": values.U[:, :rank] * root}
        for side, weight in pair.items():
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = weight.to(torch.float16).contiguous()
        cut += float(values.S[rank:].square().sum())
        whole += float(values.S.square().sum())
    try:
        with replaced_folder(output.resolve()) as folder:
            save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
            settings = {
                "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": start.name, "r": rank,
                "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
                "target_modules": _targets(target.model, layers),
            }  # fmt: skip
            (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            assert start.folder is not None  # noqa: S101 -- load_model found it in one
            write_card(folder, target.card.model_copy(update={"base": start.name, "base_sha256": fingerprint(start.folder)}))
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror})") from error
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {"layers": len(layers), "rank": rank, "bytes": size, "left": cut / whole}


def _targets(model: Any, layers: Iterable[str]) -> list[str]:
    """Return how PEFT finds `layers`: by their last names, as "q_proj", where all linear layers of these names are meant."""
    import torch

    wanted = set(layers)
    kinds = {name.rsplit(".", 1)[-1] for name in wanted}
    linear = {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return sorted(kinds if {name for name in linear if name.rsplit(".", 1)[-1] in kinds} == wanted else wanted)


def _differing(tuned: Any, base: Any, name: str, base_name: str) -> "dict[str, torch.Tensor]":
    """Return the differences of the linear layers that differ, shape (outputs, inputs), by name."""
    import torch

    start = base.state_dict()
    weights = tuned.state_dict()
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in start.items()}:
        raise ModelError(f"{name} is no tuned {base_name}: their weights have other names or shapes")
    linear = {f"{key}.weight": key for key, layer in tuned.named_modules() if isinstance(layer, torch.nn.Linear)}
    shared = tuned.get_input_embeddings().weight.data_ptr()  # the head's too, where they are one
    found = {}
    for key, weight in weights.items():
        difference = weight - start[key]
        if key in linear and weight.data_ptr() != shared:
            if difference.any():
                found[linear[key]] = difference
        elif float(difference.norm()) > _SAME * float(weight.norm()):
            raise ModelError(f"{key} of {name} differs from {base_name}'s, and an adapter holds linear layers only")
    if not found:
        raise ModelError(f"{name} and {base_name} have the same weights; there is nothing to extract")
    return found
