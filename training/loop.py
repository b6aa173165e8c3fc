"""What all trained stages share: the model to train, the trainer's arguments, and what is kept at the end."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from assistant.card import CARD_FILE, Card
from assistant.locate import fingerprint
from assistant.merge import merge
from assistant.model import LanguageModel, load_model
from assistant.quantization import DtypeName
from ingest.errors import UserError
from ingest.home import replaced_folder
from training.recipe import Adapter, Architecture, Fitting, Format, Training

if TYPE_CHECKING:
    import torch

_Arguments = TypeVar("_Arguments")
_NO_BASE = {"base": "", "base_sha256": "", "base_quantization": "none", "tokenizer": ""}  # on the card of a whole model

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
    `model/`, which holds the whole model as the next stage finds it. `model` is a name or folder for `load_model`. With
    `resume`, a stage goes on from its last checkpoint.
    """

    folder: Path
    model: str
    architecture: Architecture
    tokenizer: str | None = None
    format: Format = "chat"
    seed: int = 0
    resume: bool = False
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


def start(job: Job, fitting: Fitting, adapter: Adapter | None) -> LanguageModel:
    """Load the model that a stage begins with, ready to be trained.

    Under an adapter, its weights are in the format that products are computed in, or quantized as the adapter says; without
    one they are in single precision, where small updates are not lost. It has no dropout of its own, because a reference must
    say the same each time, and a padding token. Raises UserError (ModelError) where it cannot be loaded.
    """
    import torch

    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # each process of a launch has a GPU of its own
    names: dict[torch.dtype, DtypeName] = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    lm = load_model(
        job.model,
        quantize="none" if adapter is None else adapter.base,
        dtype="fp32" if adapter is None else names[precision(fitting)],
        tokenizer=job.tokenizer,
        on_status=job.on_status,
    )
    if lm.tokenizer.pad_token is None:
        lm.tokenizer.pad_token = lm.tokenizer.eos_token or lm.tokenizer.unk_token
    _without_dropout(lm.model)
    return lm


def _without_dropout(model: Any) -> None:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # what attention is called with
            module.attention_dropout = 0.0


def adapter_targets(model: Any, adapter: Adapter, architecture: Architecture) -> list[str]:
    """Return the ends of the names of the layers that `adapter` changes. Raises UserError where one is not in `model`."""
    names = targets(architecture, adapter.targets)
    linear = [name for name, module in model.named_modules() if type(module).__name__.startswith(("Linear", "Conv1D"))]
    missing = [name for name in names if not any(f".{full}".endswith(f".{name}") for full in linear)]
    if missing:
        there = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(f"the model has no layer {', '.join(missing)} for the adapter; its layers are {', '.join(there)}")
    return names


def adapter_config(model: Any, adapter: Adapter, architecture: Architecture) -> Any:
    """Return PEFT's settings for `adapter`. Raises UserError where a target is not in `model`."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout,
        target_modules=adapter_targets(model, adapter, architecture),
        use_dora=adapter.method == "dora", task_type="CAUSAL_LM",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )  # fmt: skip


def with_adapter(model: Any, adapter: Adapter, architecture: Architecture) -> Any:
    """Return `model` with new adapters in it, which alone have gradients, in single precision.

    Raises UserError where a target is not in `model`.
    """
    config = adapter_config(model, adapter, architecture)
    from peft import get_peft_model

    with known_warnings():
        adapted = get_peft_model(model, config)
    in_single_precision(adapted)
    return adapted


def in_single_precision(model: Any) -> None:
    """Keep what is trained in 32 bits: in bfloat16, an update below 0.4 % of a weight is lost (TRL rounds adapters to it)."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def known_warnings() -> Iterator[None]:
    """Pass over what the libraries say of each other."""
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for something that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        yield


class Plain:
    """What TRL's trainers do around training, left out: telemetry, cards of their own, and preparing rows that are prepared."""

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing: what a stage leaves behind is described by its own card and metrics."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def arguments(
    kind: "Callable[..., _Arguments]", job: Job, fitting: Fitting, metrics: dict[str, str], held: bool = True, **more: Any
) -> _Arguments:
    """Return a trainer's arguments of the class `kind`; `metrics` maps a recipe's names to the trainer's.

    `held` says whether there are held-out rows. Raises UserError where there are none, and the best weights on them are wanted.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    number = precision(fitting)
    when: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    if fitting.evaluate_every is not None:
        every = fitting.evaluate_every
        when = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": every, "save_steps": every}
    if not held:
        when["eval_strategy"] = "no"
    best = {}
    if fitting.best is not None:
        if not held:
            raise UserError(
                f"no held-out rows are left to find the best {fitting.best} on; give more rows, or leave out 'best'"
            )
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
        "max_steps": fitting.max_steps or -1,
        "learning_rate": fitting.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if fitting.schedule == "constant" and fitting.warmup else fitting.schedule,
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
        "ddp_find_unused_parameters": False,  # all that is trained is used; looking for what is not takes time in every step
    }
    return kind(**{**settings, **when, **best, **more})


def precision(fitting: Fitting) -> "torch.dtype":
    """Return the number format that products are computed in."""
    import torch

    from ingest.hardware import pick_dtype

    if fitting.precision == "auto":
        return pick_dtype("cuda" if torch.cuda.is_available() else "cpu")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[fitting.precision]


def fit(trainer: Any, job: Job) -> dict[str, Any]:
    """Train, from the last checkpoint where the job goes on with one; returns what the trainer measured.

    These are `steps`, `loss` (its mean over them) and `seconds`; and `best`, the step whose weights were kept, where wanted.
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    trainer.remove_callback(PrinterCallback)  # it prints what callbacks here show and keep
    checkpoints = Path(trainer.args.output_dir)
    last = get_last_checkpoint(str(checkpoints)) if job.resume and checkpoints.is_dir() else None
    if last is None and trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)  # of a run before this one
    with known_warnings():
        result = trainer.train(resume_from_checkpoint=last)
    state = trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]  # also those before a stop
    mean = sum(losses) / max(1, len(losses))
    found = {"steps": state.global_step, "loss": mean, "seconds": round(result.metrics["train_runtime"], 1)}
    return found | ({"best": state.best_global_step} if trainer.args.load_best_model_at_end else {})


def held_out(trainer: Any) -> dict[str, float]:
    """Return what was measured on the held-out rows with the weights that training ended with; empty without such rows."""
    if trainer.eval_dataset is None:
        return {}
    step = trainer.state.best_global_step if trainer.args.load_best_model_at_end else trainer.state.global_step
    known = [entry for entry in trainer.state.log_history if entry["step"] == step and "eval_loss" in entry]
    found: dict[str, float] = known[-1] if known else trainer.evaluate()
    speed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_num_tokens")
    return {
        name.removeprefix("eval_"): value for name, value in found.items() if name.startswith("eval_") and name not in speed
    }


def last_epoch(trainer: Any, names: Sequence[str]) -> dict[str, float]:
    """Return the means of what was logged under `names` over the last epoch of training."""
    entries = [entry for entry in trainer.state.log_history if names[0] in entry]
    entries = [entry for entry in entries if entry["epoch"] > entries[-1]["epoch"] - 1]
    return {name: sum(entry[name] for entry in entries) / len(entries) for name in names} if entries else {}


def close(trainer: Any, job: Job, lm: LanguageModel, training: Training, metrics: dict[str, Any]) -> None:
    """Save what `trainer` made of `lm`, and the metrics, as `finish` does; to be called in every process of a launch."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if _is_cut_up(trainer):
        put_together = job.folder / "checkpoints" / "whole"
        trainer.save_model(str(put_together))
        if trainer.is_world_process_zero():
            model = _loaded(put_together, job, training)
    if trainer.is_world_process_zero():
        finish(job, lm, model)
        write_metrics(job.folder, metrics)
    trainer.accelerator.wait_for_everyone()


def _is_cut_up(trainer: Any) -> bool:
    """Say whether no process of a launch has all weights."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def _loaded(folder: Path, job: Job, training: Training) -> Any:
    """Return a model as a trainer saved it: an adapter on its base, or all weights."""
    if training.adapter is None:
        return load_model(str(folder), dtype="fp32").model
    from peft import PeftModel

    with known_warnings():
        return PeftModel.from_pretrained(start(job, training.fitting, training.adapter).model, folder)


def finish(job: Job, lm: LanguageModel, model: Any) -> None:
    """Save what was trained from `lm`: `adapter/` where `model` has one, and in `model/` all weights, in 16 bits.

    The adapter's card names its base and the hash of that one's weights; the model's is that of `lm`. `model` is used up.
    """
    if hasattr(model, "peft_config"):
        named = str(Path(job.model).resolve()) if Path(job.model).is_dir() else job.model
        with _new(job.folder / "adapter") as target, known_warnings():
            model.save_pretrained(target)
            (target / "README.md").unlink(missing_ok=True)  # an empty form
            weights = fingerprint(Path(lm.model.name_or_path))
            base = {"base": named, "base_sha256": weights, "base_quantization": lm.quantization}
            write_card(target, lm.card.model_copy(update=base))
    with _new(job.model_folder) as target:
        merge(model).save_pretrained(target)
        lm.tokenizer.save_pretrained(target)
        write_card(target, lm.card.model_copy(update=_NO_BASE))


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder`, and of what it held before."""
    with replaced_folder(folder) as target:
        yield target
        shutil.rmtree(folder, ignore_errors=True)


def write_card(folder: Path, card: Card) -> None:
    """Write a model's card into its folder."""
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write what a stage measured."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
