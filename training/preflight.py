"""What can be known of a run before a model is loaded: what cannot work, and what it will take."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from assistant.locate import locate, register, tokenizer_of
from ingest.errors import ModelError, UserError
from ingest.hardware import silence_transformers
from training.loop import adapter_targets, precision
from training.recipe import DPO, SFT, Adapter, Architecture, Fitting, MCQTuning, Quantization, Recipe, Training

_LOGGERS = {
    "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "neptune": "neptune",
    "mlflow": "mlflow", "comet_ml": "comet_ml", "swanlab": "swanlab",
}  # fmt: skip
_NF4_BYTES = 0.52  # 4 bits, and scales that are quantized themselves
_METRICS = {"sft": ("loss",), "dpo": ("loss", "margin", "accuracy"), "mcq": ("loss", "accuracy")}


@dataclass(frozen=True, slots=True)
class Plan:
    """What one stage will take: steps, tokens read in training (None where unknown), parameters, and bytes of memory.

    `memory` is an estimate of weights, gradients and the optimizer's state. Activations are not in it: they grow with the
    length of the rows, and gradient checkpointing trades them for time.
    """

    steps: int
    tokens: int | None
    parameters: int
    trained: int
    memory: int

    def __str__(self) -> str:
        """Return the plan as a line."""
        tokens = "" if self.tokens is None else f", about {self.tokens:,} tokens"
        part = "all" if self.trained == self.parameters else f"{self.trained:,} adapter parameters beside the"
        memory = f"{self.memory / 2**30:.2f} GiB without activations"
        return f"{self.steps} steps{tokens}; trains {part} {self.parameters:,} parameters; {memory}"


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
    if adapter.base != "none" and find_spec("bitsandbytes") is None:
        yield f"a base in {adapter.base} needs bitsandbytes; run: pip install 'mcqa-assistant[quantize]'"
    if adapter.base == "int8" and adapter.method == "dora" and not on_gpu:
        yield "DoRA over int8 fails on a CPU; use base: nf4, or method: lora"


class Sizes:
    """What a model's configuration tells of it: its parameters, and the layers that adapters change. No weights are read."""

    def __init__(self, recipe: Recipe, model: str, tokenizer: str | None, on_status: Callable[[str], None]) -> None:
        """Find the model and its tokenizer. Raises ModelError where they are not here or do not fit the recipe."""
        import torch

        silence_transformers()
        from transformers import AutoConfig, AutoModelForCausalLM

        found = locate(model, on_status, tokenizer)
        register(found.folder)
        self.tokenizer = tokenizer_of(found)
        config = AutoConfig.from_pretrained(found.folder, local_files_only=True, trust_remote_code=False)
        if config.model_type != recipe.architecture:
            raise ModelError(
                f"the recipe {recipe.name} is for the architecture {recipe.architecture}, but {found.name} is of "
                f"{config.model_type}; use another --model, or change 'architecture'"
            )
        if _needs_chat(recipe) and not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {found.name} has no chat template; use format: alpaca or plain, or a tokenizer that has one"
            )
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())

    def plan(self, stage: Training, architecture: Architecture, rows: int, tokens: float | None) -> Plan:
        """Return what `stage` will take on so many rows of `tokens` tokens each (mean). Raises UserError on missing layers."""
        fitting, adapter = stage.fitting, stage.adapter
        steps = steps_of(fitting, rows)
        read = None if tokens is None else round(steps * fitting.batch_size * fitting.accumulation * processes() * tokens)
        if adapter is None:
            return Plan(steps, read, self.parameters, self.parameters, memory_of(self.parameters))
        names = adapter_targets(self.model, adapter, architecture)
        layers = [module for name, module in self.model.named_modules() if any(f".{name}".endswith(f".{end}") for end in names)]
        shapes = [tuple(layer.weight.shape) for layer in layers]
        outputs = [getattr(layer, "nf", shape[0]) for layer, shape in zip(layers, shapes, strict=True)]
        trained = sum(adapter.rank * sum(shape) for shape in shapes) + (sum(outputs) if adapter.method == "dora" else 0)
        inside = sum(one * other for one, other in shapes)
        size = {"none": precision(fitting).itemsize, "int8": 1.0, "nf4": _NF4_BYTES}[adapter.base]
        rest = (self.parameters - inside) * precision(fitting).itemsize
        return Plan(steps, read, self.parameters, trained, round(inside * size + rest) + memory_of(trained))


def _needs_chat(recipe: Recipe) -> bool:
    trains = any(isinstance(stage, SFT) or (isinstance(stage, DPO) and stage.data) for stage in recipe.stages)
    return trains and recipe.format == "chat"


def steps_of(fitting: Fitting, rows: int) -> int:
    """Return how many times the weights change: an epoch ends with what is left, as transformers counts them.

    Under a launch each process has batches of its own, and all of them make one step.
    """
    batches = math.ceil(math.ceil(rows / fitting.batch_size) / processes())
    steps = math.ceil(math.ceil(batches / fitting.accumulation) * fitting.epochs)
    return min(steps, fitting.max_steps) if fitting.max_steps else steps


def processes() -> int:
    """Return how many processes a launch has, of which this is one; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def memory_of(trained: int) -> int:
    """Return bytes for weights that are trained, their gradients and Adam's two moments, all in 32 bits."""
    return trained * (4 + 4 + 8)
