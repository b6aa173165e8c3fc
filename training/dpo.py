"""Direct preference optimization through TRL's trainer; a prompt and both of its answers are read in one row."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

from assistant import attention
from assistant.model import LanguageModel
from assistant.packing import packing_works
from assistant.scoring import Encoded, token_logprobs
from ingest.errors import UserError
from ingest.hardware import silence_transformers
from training.loop import (
    Job,
    Plain,
    adapter_config,
    arguments,
    close,
    fit,
    held_out,
    in_single_precision,
    known_warnings,
    last_epoch,
    precision,
    start,
)
from training.pairs import Pair
from training.recipe import DPO
from training.reference import References, references
from training.rows import pair_rows

if TYPE_CHECKING:
    import torch

METRICS = {"loss": "eval_loss", "margin": "eval_rewards/margins", "accuracy": "eval_rewards/accuracies"}
_LOGGED = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
# What TRL logs of the whole distribution at each token; here only the tokens' own probabilities are computed.
_NOT_COMPUTED = ("entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy")


def run_dpo(
    stage: DPO, job: Job, pairs_train: Sequence[Pair], pairs_held: Sequence[Pair], callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train the job's model to prefer the chosen answers; writes its folder and returns the metrics, also in `metrics.json`.

    These are rows read, cut and left out, steps, seconds, the mean loss, and rewards (beta times the log-ratio to the
    reference, in nats) over the last epoch and on the held-out rows. `callbacks` are transformers'. Raises UserError where
    rows or settings cannot be trained with.
    """
    trainer, lm, known = dpo_trainer(stage, job, pairs_train, pairs_held, callbacks)
    measured = fit(trainer, job)
    metrics = {
        "kind": "dpo", "processes": trainer.accelerator.num_processes, **known, **measured,
        "train": last_epoch(trainer, ("loss", *_LOGGED)), "held_out": held_out(trainer),
    }  # fmt: skip
    close(trainer, job, lm, stage, metrics)
    return metrics


def dpo_trainer(
    stage: DPO, job: Job, pairs_train: Sequence[Pair], pairs_held: Sequence[Pair], callbacks: Sequence[Any] = ()
) -> tuple[Any, LanguageModel, dict[str, Any]]:
    """Return TRL's trainer ready to start, the model it trains, and what is known of the rows and of the reference."""
    import time

    silence_transformers()
    try:
        from trl import DPOConfig
    except ImportError as error:
        raise UserError("preference tuning needs the package trl; run: pip install 'mcqa-assistant[train]'") from error
    from transformers import EarlyStoppingCallback

    fitting = stage.fitting
    lm = start(job, fitting, stage.adapter)
    longest = min(fitting.max_length, lm.window)
    train, held = (pair_rows(pairs, lm.tokenizer, job.format, longest) for pairs in (pairs_train, pairs_held))
    if not train.encoded:
        raise UserError(f"no pair is left to train on ({train.reasons}); give others, or raise max_length")
    settings = arguments(
        DPOConfig, job, fitting, METRICS, held=bool(held.encoded), beta=stage.beta, loss_type=[stage.loss],
        label_smoothing=stage.label_smoothing, max_length=None,
        precompute_ref_log_probs=stage.adapter is None,  # else TRL loads the model once more
        disable_dropout=False,  # it would be the adapter's; the model's own is gone
    )  # fmt: skip
    lm._packs = packing_works(lm)
    attention.disable(lm.model)
    job.on_status(f"reference log-probabilities of {len(train.encoded) + len(held.encoded)} pairs")
    began = time.perf_counter()
    known = [references(lm, rows.encoded, precision(fitting)) for rows in (train, held) if rows.encoded]
    seconds = time.perf_counter() - began
    sets = [_dataset(rows.encoded, found) for rows, found in zip((train, held), known, strict=False)]
    watching = [EarlyStoppingCallback(fitting.patience)] if fitting.patience is not None else []
    with known_warnings():
        trainer = _trainer_class()(
            lm,
            model=lm.model,
            args=settings,
            train_dataset=sets[0],
            eval_dataset=sets[1] if held.encoded else None,
            processing_class=lm.tokenizer,
            peft_config=None if stage.adapter is None else adapter_config(lm.model, stage.adapter, job.architecture),
            callbacks=[*watching, *callbacks],
        )
    return trainer, lm, {
        "pairs": {"train": train.counts, "held_out": held.counts},
        "reference": {"seconds": round(seconds, 2), "reused": all(found.reused for found in known)},
    }  # fmt: skip


def _dataset(rows: Sequence[Encoded], known: References) -> Any:
    """Return the rows under the names that TRL's collator knows."""
    from datasets import Dataset

    return Dataset.from_dict({
        "prompt_ids": [row.prefix for row in rows],
        "chosen_ids": [row.continuations[0] for row in rows],
        "rejected_ids": [row.continuations[1] for row in rows],
        "ref_chosen_logps": known.logps[:, 0].tolist(),
        "ref_rejected_logps": known.logps[:, 1].tolist(),
    })  # fmt: skip


@cache
def _trainer_class() -> type:
    """Return TRL's trainer with another forward pass; losses, rewards and everything else are its own."""
    from trl import DPOTrainer

    class PackedDPOTrainer(Plain, DPOTrainer):  # type: ignore[misc]
        """Trains on tokenized rows with known references, each pair in one row where the model can."""

        def __init__(self, lm: LanguageModel, **settings: Any) -> None:
            super().__init__(**settings)
            in_single_precision(self.model)
            self.precompute_ref_logps = True  # they stand in the rows
            self._packs = bool(lm._packs)
            if self._packs:
                _read_packed(lm)

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def log(self, logs: dict[str, float], *rest: Any) -> None:
            """Log what was computed."""
            for name in _NOT_COMPUTED if self._packs else ():
                self._metrics["train" if self.model.training else "eval"].pop(name, None)
            super().log(logs, *rest)

    return PackedDPOTrainer


def _read_packed(lm: LanguageModel) -> None:
    """Let the model answer TRL's question for log-probabilities from packed rows.

    TRL calls the model, in whatever it is wrapped, with `fused_lm_head=True`; an adapter's layers lie inside `lm.model`.
    """
    model = lm.model
    before = model.forward
    inner = replace(lm, model=_Called(model, before))

    def forward(_: Any, *positional: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head:
            return before(*positional, **named)
        return _pair_logprobs(inner, named["input_ids"], named["attention_mask"], named["labels"])

    model.forward = MethodType(forward, model)


class _Called:
    """A model whose forward pass is the given function; everything else is the model's."""

    def __init__(self, model: Any, forward: Any) -> None:
        self.model = model
        self.forward = forward

    def __call__(self, **inputs: Any) -> Any:
        return self.forward(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _pair_logprobs(lm: LanguageModel, ids: "torch.Tensor", mask: "torch.Tensor", labels: "torch.Tensor") -> Any:
    """Return TRL's output for a batch whose first half are prompts with the chosen answers, the second with the rejected.

    All are of shape (2 pairs, tokens), padded on the right, `labels` -100 outside of answers. `log_probs` is of shape
    (2 pairs, tokens - 1), 0 outside of answers; what TRL logs of whole distributions is 0 everywhere.
    """
    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    lengths = mask.sum(1).tolist()
    starts = (labels != -100).int().argmax(1).tolist()
    texts = [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]
    pairs = len(texts) // 2
    read = [
        token_logprobs(lm, Encoded(texts[i][: starts[i]], [texts[i][starts[i] :], texts[pairs + i][starts[i] :]]))
        for i in range(pairs)
    ]
    places = [(start - 1, ids.shape[1] - 1) for start in starts]
    rows = [
        torch.nn.functional.pad(logps, (begin, width - begin - len(logps)))
        for logps, (begin, width) in zip([pair[0] for pair in read] + [pair[1] for pair in read], places, strict=True)
    ]
    log_probs = torch.stack(rows)
    nothing = torch.zeros_like(log_probs, requires_grad=False)
    return FusedCausalLMOutput(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
