"""What all trained stages share: the model to train, the trainer's arguments, and what is kept at the end."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from assistant.card import CARD_FILE, Card
from ingest.errors import UserError
from training.recipe import Adapter, Architecture, Fitting, Format

if TYPE_CHECKING:
    import torch

_Arguments = TypeVar("_Arguments")

# The linear layers of each architecture: those of attention, and those between ("dense").
TARGETS: dict[Architecture, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gpt2": (("c_attn", "attn.c_proj"), ("c_fc", "mlp.c_proj")),
    "llama": (("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")),
    "mistral": (("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")),
    "openelm": (("qkv_proj", "out_proj"), ("proj_1", "proj_2")),
    "phi": (("q_proj", "k_proj", "v_proj", "dense"), ("fc1", "fc2")),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a stage has come: the step, of how many, and what was logged last."""

    step: int
    steps: int
    logged: dict[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of a run: the model it starts from, and where it writes.

    `folder` gets `checkpoints/`, `trainer_log.jsonl`, `curves.png`, `metrics.json`, `adapter/` where there is one, and
    `model/`, which holds the whole model as the next stage finds it. `model` is a name or folder for `load_model`, `data` the
    data folder. With `resume`, a stage goes on from its last checkpoint.
    """

    folder: Path
    model: str
    architecture: Architecture
    tokenizer: str | None = None
    format: Format = "chat"
    seed: int = 0
    resume: bool = False
    max_steps: int | None = None
    on_status: Callable[[str], None] = field(default=lambda _: None)
    on_step: Callable[[Standing], None] = field(default=lambda _: None)

    @property
    def model_folder(self) -> Path:
        """Where the tuned model goes."""
        return self.folder / "model"


def targets(architecture: Architecture, wanted: str | tuple[str, ...]) -> list[str]:
    """Return the names of the layers that an adapter changes, as ends of their full names."""
    if not isinstance(wanted, str):
        return list(wanted)
    attention, dense = TARGETS[architecture]
    return [*(attention if wanted in ("attention", "all") else ()), *(dense if wanted in ("dense", "all") else ())]


def adapter_config(model: Any, adapter: Adapter, architecture: Architecture) -> Any:
    """Return PEFT's settings for `adapter`. Raises UserError where a target is not in `model`."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError("adapters need the package peft; run: pip install 'mcqa-assistant[train]'") from error
    names = targets(architecture, adapter.targets)
    linear = [name for name, module in model.named_modules() if type(module).__name__.startswith(("Linear", "Conv1D"))]
    missing = [name for name in names if not any(f".{full}".endswith(f".{name}") for full in linear)]
    if missing:
        there = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(f"the model has no layer {', '.join(missing)} for the adapter; its layers are {', '.join(there)}")
    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=names,
        use_dora=adapter.method == "dora", task_type="CAUSAL_LM",
    )  # fmt: skip


def with_adapter(model: Any, adapter: Adapter, architecture: Architecture) -> Any:
    """Return `model` with new adapters in it, which alone have gradients. Raises UserError where a target is not there."""
    config = adapter_config(model, adapter, architecture)
    from peft import get_peft_model, prepare_model_for_kbit_training

    with warnings.catch_warnings():
        # peft 0.21 asks transformers for something that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        if adapter.base != "none":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return get_peft_model(model, config)


def arguments(
    kind: "Callable[..., _Arguments]", job: Job, fitting: Fitting, metrics: dict[str, str], **more: Any
) -> _Arguments:
    """Return a trainer's arguments of the class `kind`; `metrics` maps a recipe's names to the trainer's."""
    import torch

    on_gpu = torch.cuda.is_available()
    number = precision(fitting)
    when = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    if fitting.evaluate_every is not None:
        every = fitting.evaluate_every
        when = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": every, "save_steps": every}  # type: ignore[dict-item]
    best = {}
    if fitting.best is not None:
        best = {
            "load_best_model_at_end": True,
            "metric_for_best_model": metrics[fitting.best],
            "greater_is_better": fitting.best != "loss",
        }
    optimizer = {"adamw": "adamw_torch"}.get(fitting.optimizer, fitting.optimizer)
    if not on_gpu and optimizer.startswith("paged_adamw"):
        optimizer = "adamw_torch"  # paging only moves the same numbers between a GPU's memory and the machine's
    settings: dict[str, Any] = {
        "output_dir": str(job.folder / "checkpoints"),
        "per_device_train_batch_size": fitting.batch_size,
        "per_device_eval_batch_size": fitting.batch_size,
        "gradient_accumulation_steps": fitting.accumulation,
        "num_train_epochs": fitting.epochs,
        "max_steps": job.max_steps or fitting.max_steps or -1,
        "learning_rate": fitting.learning_rate,
        "lr_scheduler_type": fitting.schedule
        if fitting.warmup == 0 or fitting.schedule != "constant"
        else "constant_with_warmup",
        "warmup_steps": fitting.warmup,  # a share of all steps where below 1
        "optim": optimizer,
        "weight_decay": fitting.weight_decay,
        "max_grad_norm": fitting.max_grad_norm,
        "bf16": number == torch.bfloat16,
        "fp16": number == torch.float16,
        "activation_checkpointing": fitting.gradient_checkpointing,
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": list(fitting.loggers),
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": not on_gpu,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
    }
    return kind(**{**settings, **when, **best, **more})


def precision(fitting: Fitting) -> "torch.dtype":
    """Return the number format that products are computed in."""
    import torch

    from ingest.hardware import pick_dtype

    if fitting.precision == "auto":
        return pick_dtype("cuda" if torch.cuda.is_available() else "cpu")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[fitting.precision]


def write_card(folder: Path, card: Card) -> None:
    """Write a model's card into its folder."""
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write what a stage measured."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
