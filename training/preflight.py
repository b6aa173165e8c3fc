"""What can be known of a run before a model is loaded: what cannot work, and what it will take."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ingest.errors import ModelError, UserError
from training.recipe import DPO, SFT, Adapter, Fitting, MCQTuning, Quantization, Recipe, Training

if TYPE_CHECKING:
    from assistant.model import LanguageModel

_LOGGERS = {
    "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "neptune": "neptune",
    "mlflow": "mlflow", "comet_ml": "comet_ml", "swanlab": "swanlab",
}  # fmt: skip
_METRICS = {"sft": ("loss",), "dpo": ("loss", "margin", "accuracy"), "mcq": ("loss", "accuracy")}


@dataclass(frozen=True, slots=True)
class Plan:
    """What one stage will take. `memory` is an estimate in bytes of weights, gradients and the optimizer's state.

    Activations are not in it: they grow with the length of the rows, and gradient checkpointing trades them for time.
    """

    kind: str
    train: int
    held: int
    steps: int
    tokens: int
    memory: int
    left_out: tuple[str, ...] = ()


def refuse(recipe: Recipe) -> None:
    """Raise UserError that names everything in the recipe that cannot work on this machine."""
    problems = [
        f"stage {number} ({stage.kind}): {problem}"
        for number, stage in enumerate(recipe.stages, start=1)
        for problem in _problems(stage)
    ]
    if problems:
        raise UserError(f"recipe {recipe.name} cannot run here: " + "; ".join(problems))


def _problems(stage: Any) -> Iterator[str]:
    import torch

    on_gpu = torch.cuda.is_available()
    if isinstance(stage, Quantization) and find_spec("bitsandbytes") is None:
        yield "quantizing needs bitsandbytes; run: pip install 'mcqa-assistant[quantize]'"
    if not isinstance(stage, Training):
        return
    yield from _fitting_problems(stage, on_gpu)
    if stage.adapter is not None:
        yield from _adapter_problems(stage.adapter, on_gpu)
    if isinstance(stage, DPO) and stage.label_smoothing and stage.loss != "robust":
        yield f"label_smoothing does nothing with the loss '{stage.loss}'; use loss: robust, or leave it out"
    if isinstance(stage, MCQTuning) and stage.objective == "cloze" and stage.normalization == "pmi":
        yield "normalization pmi is for scoring; tune with sum, token or byte"


def _fitting_problems(stage: Training, on_gpu: bool) -> Iterator[str]:
    fitting, kind = stage.fitting, stage.kind  # type: ignore[attr-defined]
    if fitting.best is not None and fitting.best not in _METRICS[kind]:
        yield f"best: {fitting.best} is not measured here; use {', '.join(_METRICS[kind])}"
    if fitting.patience is not None and fitting.best is None:
        yield "patience needs best, the metric that has to improve"
    if fitting.precision == "fp16" and not on_gpu:
        yield "fp16 is no format that CPUs compute in; use precision: auto, bf16 or fp32"
    if fitting.optimizer.startswith("paged_adamw") and on_gpu and find_spec("bitsandbytes") is None:
        yield f"the optimizer {fitting.optimizer} needs bitsandbytes; run: pip install 'mcqa-assistant[quantize]'"
    for name in fitting.loggers:
        if name not in _LOGGERS:
            yield f"unknown logger '{name}'; use {', '.join(_LOGGERS)}"
        elif find_spec(_LOGGERS[name]) is None:
            yield f"the logger {name} needs its package; run: pip install {_LOGGERS[name]}, or set loggers: []"


def _adapter_problems(adapter: Adapter, on_gpu: bool) -> Iterator[str]:
    if find_spec("peft") is None:
        yield "adapters need the package peft; run: pip install 'mcqa-assistant[train]'"
    if adapter.base != "none" and find_spec("bitsandbytes") is None:
        yield f"a base in {adapter.base} needs bitsandbytes; run: pip install 'mcqa-assistant[quantize]'"
    if adapter.base == "int8" and adapter.method == "dora" and not on_gpu:
        yield "DoRA over int8 fails on a CPU; use base: nf4, or method: lora"


def check_format(recipe: Recipe, lm: "LanguageModel") -> None:
    """Raise ModelError where conversations are to be written by a chat template that the tokenizer does not have."""
    trains = any(isinstance(stage, SFT) or (isinstance(stage, DPO) and stage.data) for stage in recipe.stages)
    if trains and recipe.format == "chat" and not getattr(lm.tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {lm.name} has no chat template; use format: alpaca or plain, or a tokenizer that has one"
        )


def steps_of(fitting: Fitting, rows: int) -> int:
    """Return how many times the weights change: an epoch ends with what is left, as transformers counts them."""
    batches = math.ceil(rows / fitting.batch_size)
    steps = math.ceil(math.ceil(batches / fitting.accumulation) * fitting.epochs)
    return min(steps, fitting.max_steps) if fitting.max_steps else steps


def memory_of(parameters: int, trained: int, base_bytes: float) -> int:
    """Return bytes for weights, gradients and Adam's two moments: the trained ones in 32 bits, the others as they are."""
    return round((parameters - trained) * base_bytes + trained * (4 + 4 + 8))


def lora_parameters(shapes: Sequence[tuple[int, int]], rank: int, *, dora: bool) -> int:
    """Return how many numbers an adapter has over layers of these (inputs, outputs)."""
    return sum(rank * (inputs + outputs) + (outputs if dora else 0) for inputs, outputs in shapes)
