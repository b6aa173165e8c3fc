"""MCQ tuning: raise the right option's share of the probability, scored exactly as the assistant scores it.

Importing this module imports torch and transformers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction

from assistant.answer import TOGETHER
from assistant.card import Measured
from assistant.mcq import MAX_OPTIONS
from assistant.model import LanguageModel
from assistant.packing import packing_works
from assistant.stats import wilson
from ingest.errors import UserError
from training.examples import Example, scores, tuned_card
from training.loop import Job, arguments, close, fit, start, with_adapter
from training.recipe import MCQTuning

_METRICS = {"loss": "eval_loss", "margin": "eval_margin", "accuracy": "eval_accuracy"}
_NO_OPTION = -1e30  # the score of an option that a question does not have; finite, so that differences stay numbers


def run_mcq(
    stage: MCQTuning,
    job: Job,
    items_train: Sequence[Example],
    items_held: Sequence[Example],
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Tune the job's model on prepared examples and write it, with its card and the metrics, to the job's folder.

    Returns the metrics: how many of the held-out questions are right before and after, with 95 % intervals, and the same of
    as many training questions after. Raises UserError where the stage asks for what cannot be tuned.
    """
    _refuse(stage, items_train, items_held)
    lm = start(job, stage.fitting, stage.adapter)
    trained = lm.model
    if stage.adapter is not None:
        set_seed(job.seed)
        trained = with_adapter(lm.model, stage.adapter, job.architecture)
    settings = arguments(
        TrainingArguments, job, stage.fitting, _METRICS,
        per_device_eval_batch_size=TOGETHER, ddp_broadcast_buffers=False,
    )  # fmt: skip
    settings._n_gpu = min(1, settings.n_gpu)  # questions are no tensors to be spread over several; a launch gives each its own
    trainer = MCQTrainer(lm, trained, settings, items_train, items_held, callbacks)
    if stage.fitting.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(stage.fitting.patience))
    before = trainer.measured(items_held)
    fitted = fit(trainer, job)
    after = trainer.measured(items_held)
    metrics = {
        "kind": "mcq",
        "questions": {"trained": len(items_train), "held_out": len(items_held)},
        **fitted,
        "held_out": {"before": before, "after": after},
        "trained": {"after": trainer.measured(items_train[: len(items_held)])},
    }
    files = ", ".join(of.name + (f" (course {of.course})" if of.course else "") for of in stage.data)
    held = ", ".join(of.name for of in stage.held) or files
    known = Measured(on=f"held-out questions of {held}", n=after["n"], right=after["right"])
    lm.card = tuned_card(stage, lm.card).model_copy(
        update={"training_data": f"{len(items_train)} questions of {files}", "accuracy": (known,)}
    )
    close(trainer, job, lm, stage, metrics)
    return metrics


class MCQTrainer(Trainer):  # type: ignore[misc]
    """Cross-entropy of the right option under the softmax of the options' scores; the questions of a batch are read together.

    Beside the loss it logs, of training and held-out questions, `accuracy`, the mean score of the right option
    (`logps/chosen`) and of the best wrong one (`logps/rejected`), and their difference (`margin`), in nats.
    """

    def __init__(
        self,
        lm: LanguageModel,
        trained: Any,
        settings: TrainingArguments,
        train: Sequence[Example],
        held: Sequence[Example],
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """`trained` is the model of `lm`, or what holds it and adapters in it: these compute wherever that model is called."""
        self._lm = lm
        lm.model.eval()
        lm._packs = packing_works(lm)  # while nothing is dropped or rounded
        self._seen: list[torch.Tensor] = []
        super().__init__(
            model=trained, args=settings, train_dataset=list(train), eval_dataset=list(held), data_collator=_collated,
            compute_metrics=_metrics, callbacks=list(callbacks),
        )  # fmt: skip
        self.loss_is_scaled_for_ga = False  # it is a mean over the batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 -- as transformers calls it
    ) -> Any:
        """Return the mean loss of the batch's questions, in nats."""
        found = self._scores(model, inputs["examples"])
        self._seen.append(_totals(found.detach(), inputs["right"]))
        loss = cross_entropy(found, inputs["right"])
        return (loss, found) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return no loss, the options' scores, shape (questions, MAX_OPTIONS), and which are right."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return None, self._scores(model, inputs["examples"]), inputs["right"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log also what the questions since the last time came to."""
        if "loss" in logs and self._seen:
            totals = self.accelerator.reduce(torch.stack(self._seen).sum(0), "sum")
            correct, right, wrong, count = totals.tolist()
            self._seen.clear()
            logs |= {
                "accuracy": correct / count,
                "margin": (right - wrong) / count,
                "logps/chosen": right / count,
                "logps/rejected": wrong / count,
            }
        super().log(logs, start_time)

    def measured(self, items: Sequence[Example]) -> dict[str, Any]:
        """Return how many of `items` are right, with the accuracy's 95 % interval, and their mean loss in nats.

        Not by `predict`: what that prepares for an evaluation before training, accelerate does not wrap for training any more,
        and the processes of a launch would each train a model of their own.
        """
        self.model.eval()
        with torch.no_grad():
            found = torch.cat([
                self._scores(self.model_wrapped, items[start : start + TOGETHER]) for start in range(0, len(items), TOGETHER)
            ])  # fmt: skip
        known = _metrics(EvalPrediction(found.float().cpu().numpy(), np.array([example.right for example in items])))
        right = round(known["accuracy"] * len(items))
        low, high = wilson(right, len(items))
        return {
            "n": len(items), "right": right, "accuracy": round(known["accuracy"], 4),
            "interval": [round(low, 4), round(high, 4)], "loss": known["loss"],
        }  # fmt: skip

    def _scores(self, model: Any, batch: Sequence[Example]) -> torch.Tensor:
        """Return the options' scores, shape (questions, MAX_OPTIONS), through `model`, which may wrap the one that is trained.

        A wrapper (DDP, FSDP) gathers gradients of what its forward pass computed, and takes one pass a step: so all rows of
        the batch are read within a single call of it, for which the model's own forward is put aside.
        """
        bare = self.accelerator.unwrap_model(model)
        if bare is model:
            return self._read(batch)
        own = vars(bare).get("forward")

        def put_back() -> None:
            vars(bare).pop("forward", None)
            if own is not None:
                bare.forward = own

        def forward(batch: Sequence[Example]) -> torch.Tensor:
            put_back()
            return self._read(batch)

        bare.forward = forward
        try:
            found: torch.Tensor = model(batch)
            return found
        finally:
            put_back()

    def _read(self, batch: Sequence[Example]) -> torch.Tensor:
        with self.accelerator.autocast():
            found = scores(self._lm, batch)
        return torch.stack([pad(of_one, (0, MAX_OPTIONS - len(of_one)), value=_NO_OPTION) for of_one in found])


def _collated(batch: Sequence[Example]) -> dict[str, Any]:
    return {"examples": list(batch), "right": torch.tensor([example.right for example in batch])}


def _totals(found: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return sums over the questions: of right answers, of the right option's score, of the best wrong one's; and how many."""
    chosen = found.gather(1, right[:, None])[:, 0]
    rejected = found.scatter(1, right[:, None], 2 * _NO_OPTION).amax(1)
    return torch.stack([(chosen > rejected).float().sum(), chosen.sum(), rejected.sum(), found.new_tensor(len(right))])


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    found = torch.from_numpy(np.asarray(prediction.predictions))
    right = torch.from_numpy(np.asarray(prediction.label_ids))
    correct, chosen, rejected, count = _totals(found, right).tolist()
    return {
        "loss": float(cross_entropy(found, right)),
        "accuracy": correct / count,
        "margin": (chosen - rejected) / count,
        "logps/chosen": chosen / count,
        "logps/rejected": rejected / count,
    }


def _refuse(stage: MCQTuning, train: Sequence[Example], held: Sequence[Example]) -> None:
    if stage.objective == "cloze" and stage.normalization == "pmi":
        raise UserError("normalization pmi is for scoring; tune with sum, token or byte")
    if not train or not held:
        raise UserError(
            f"{len(train)} questions to train on and {len(held)} held out are too few; add some to the recipe's data"
        )
