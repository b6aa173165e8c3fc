"""Supervised tuning through TRL's trainer: the answers' tokens become likelier, the prompts' are read only."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from ingest.errors import UserError
from ingest.hardware import silence_transformers
from training.instructions import Instruction
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
    start,
)
from training.recipe import SFT
from training.rows import Rows, answer_rows

METRICS = {"loss": "eval_loss"}


def run_sft(
    stage: SFT, job: Job, rows_train: Sequence[Instruction], rows_held: Sequence[Instruction], callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train the job's model to give the rows' answers; writes its folder and returns the metrics, also in `metrics.json`.

    These are rows read, cut and left out, steps, seconds, and the mean loss in nats a token of the answers, over the last
    epoch and on the held-out rows. `callbacks` are transformers'. Raises UserError where rows or settings cannot be trained
    with.
    """
    silence_transformers()
    try:
        from trl import SFTConfig
    except ImportError as error:
        raise UserError("supervised tuning needs the package trl; run: pip install 'mcqa-assistant[train]'") from error
    from transformers import EarlyStoppingCallback

    fitting = stage.fitting
    lm = start(job, fitting, stage.adapter)
    longest = min(fitting.max_length, lm.window)
    train, held = (
        answer_rows([(row.prompt, row.answer, row.place) for row in rows], lm.tokenizer, job.format, longest)
        for rows in (rows_train, rows_held)
    )
    if not train.encoded:
        raise UserError(f"no row is left to train on ({train.reasons}); give others, or raise max_length")
    with known_warnings():
        trainer = _trainer_class()(
            model=lm.model,
            args=arguments(SFTConfig, job, fitting, METRICS, held=bool(held.encoded), max_length=None),
            train_dataset=_dataset(train),
            eval_dataset=_dataset(held) if held.encoded else None,
            processing_class=lm.tokenizer,
            peft_config=None if stage.adapter is None else adapter_config(lm.model, stage.adapter, job.architecture),
            callbacks=[*([EarlyStoppingCallback(fitting.patience)] if fitting.patience is not None else []), *callbacks],
        )
    in_single_precision(trainer.model)
    measured = fit(trainer, job)
    metrics = {
        "kind": "sft",
        "processes": trainer.accelerator.num_processes,
        "rows": {"train": train.counts, "held_out": held.counts},
        **measured,
        "train": last_epoch(trainer, ("loss", "mean_token_accuracy")),
        "held_out": held_out(trainer),
    }
    close(trainer, job, lm, stage, metrics)
    return metrics


def _dataset(rows: Rows) -> Any:
    """Return the rows under the names that TRL's collator knows; a label of -100 is not learned."""
    from datasets import Dataset

    return Dataset.from_dict({
        "input_ids": [row.prefix + row.continuations[0] for row in rows.encoded],
        "labels": [[-100] * len(row.prefix) + row.continuations[0] for row in rows.encoded],
    })  # fmt: skip


@cache
def _trainer_class() -> type:
    from trl import SFTTrainer

    class PlainSFTTrainer(Plain, SFTTrainer):  # type: ignore[misc]
        """TRL's trainer on rows that are tokenized already."""

    return PlainSFTTrainer
