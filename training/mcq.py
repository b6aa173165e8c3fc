"""MCQ tuning: raise the probability of the right option's text, scored exactly as the assistant scores it."""

import json
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assistant.answer import Assistant
from assistant.card import CARD_FILE, Card
from assistant.formats import read_mcqs
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.scoring import Encoded, divisors, encode, token_logprobs
from assistant.stats import percent_with_interval
from ingest.course import Course
from ingest.errors import UserError
from ingest.home import replaced_folder
from training.recipe import Recipe, Tuning

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Example:
    """A question ready to be scored: its tokens, what each option's log-likelihood is divided by, and the right option."""

    encoded: Encoded
    divisors: tuple[int, ...]
    right: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One step of training, as reported while it runs: the step, of how many, and the mean loss of its questions."""

    step: int
    steps: int
    loss: float


def run_recipe(
    recipe: Recipe,
    output: Path,
    *,
    on_status: Callable[[str], None] = lambda _: None,
    on_step: Callable[[Standing], None] = lambda _: None,
) -> dict[str, Any]:
    """Tune the recipe's model and write it to the new folder `output`, with its card, the recipe and the metrics.

    Returns the metrics. Raises UserError before anything slow where the data or the output folder cannot be used.
    """
    import torch

    if output.exists():
        raise UserError(f"{output} already exists; choose another --output")
    mcqs = _read(recipe)
    lm = load_model(recipe.model, on_status=on_status)
    lm.card = Card(scoring="cloze", normalization=recipe.normalization, passages=recipe.passages)
    on_status(f"finding passages for {len(mcqs)} questions")
    examples = _examples(lm, recipe, mcqs)
    random.Random(recipe.seed).shuffle(examples)
    held = max(1, round(recipe.held_out * len(examples)))
    if len(examples) - held < 1:
        raise UserError(f"{len(examples)} keyed questions are too few to hold out {recipe.held_out:.0%} and train on the rest")
    test, train = examples[:held], examples[held:]

    torch.manual_seed(recipe.seed)
    lm.model.float()  # small updates are lost in 16 bits; forward passes are computed in 16 bits where the CPU has them
    before = evaluate(lm, test)
    on_status(f"held-out accuracy before: {percent_with_interval(before, len(test))}")
    started = time.perf_counter()
    losses = tune(lm, train, recipe.tuning, recipe.seed, on_step)
    seconds = time.perf_counter() - started
    after = evaluate(lm, test)
    metrics = {
        "questions": {"trained": len(train), "held_out": len(test)},
        "held_out_correct": {"before": before, "after": after},
        "losses": [round(loss, 4) for loss in losses],
        "seconds": round(seconds, 1),
    }
    with replaced_folder(output) as target:
        lm.model.half().save_pretrained(target)
        lm.tokenizer.save_pretrained(target)
        (target / CARD_FILE).write_text(lm.card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (target / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (target / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def tune(
    lm: LanguageModel, examples: Sequence[Example], tuning: Tuning, seed: int, on_step: Callable[[Standing], None]
) -> list[float]:
    """Train `lm.model` in place (LoRA weights are merged at the end); returns the mean loss of each step, in nats.

    The loss of a question is the cross-entropy of the right option under the softmax of the options' scores.
    """
    import torch

    base = lm.model
    adapted = _with_lora(base, tuning) if tuning.method == "lora" else None
    parameters = [parameter for parameter in base.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=tuning.learning_rate, weight_decay=0.0)
    order = random.Random(seed)
    batches: list[list[Example]] = []
    for _ in range(tuning.epochs):
        shuffled = order.sample(examples, len(examples))
        batches += [shuffled[i : i + tuning.accumulation] for i in range(0, len(shuffled), tuning.accumulation)]
    batches = batches[: tuning.max_steps]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_then_linear(len(batches), tuning.warmup))
    losses = []
    base.train()
    for step, batch in enumerate(batches, start=1):
        total = 0.0
        for example in batch:
            scores = _scores(lm, example)
            right = torch.tensor(example.right, device=scores.device)
            loss = torch.nn.functional.cross_entropy(scores, right) / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
        on_step(Standing(step, len(batches), total))
    base.eval()
    if adapted is not None:
        lm.model = adapted.merge_and_unload()
    return losses


def evaluate(lm: LanguageModel, examples: Sequence[Example]) -> int:
    """Return how many of `examples` the model answers rightly."""
    import torch

    with torch.inference_mode():
        return sum(int(_scores(lm, example).argmax()) == example.right for example in examples)


def _scores(lm: LanguageModel, example: Example) -> "torch.Tensor":
    import torch

    from ingest.hardware import pick_dtype

    kind = lm.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=pick_dtype(kind) == torch.bfloat16):
        tokens = token_logprobs(lm, example.encoded)
    sums = torch.stack([of_option.sum() for of_option in tokens])
    return sums / torch.tensor(example.divisors, device=sums.device)


def _with_lora(model: Any, tuning: Tuning) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs the package peft; run: pip install 'mcqa-assistant[train]'") from error
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for something that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        return get_peft_model(model, config)  # `model` itself now holds the adapters, and only they have gradients


def _warmup_then_linear(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(warmup * steps))
    return lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising + 1), 1.0)


def _read(recipe: Recipe) -> list[tuple[MCQ, str | None]]:
    """Return all keyed questions with the course to search; raises UserError naming the first row that has no key."""
    found: list[tuple[MCQ, str | None]] = []
    for source in recipe.data:
        if source.course is not None:
            Course.open(source.course)
        for row in read_mcqs(source.questions):
            if row.mcq is None or row.mcq.answer is None:
                raise UserError(f"{source.questions} line {row.line}: {row.error or 'no key; training needs one'}")
            found.append((row.mcq, source.course))
    return found


def _examples(lm: LanguageModel, recipe: Recipe, mcqs: Sequence[tuple[MCQ, str | None]]) -> list[Example]:
    assistants = {
        name: Assistant(lm, Course.open(name) if name else None, scoring="cloze", passages=recipe.passages)
        for name in {course for _, course in mcqs}
    }
    examples = []
    for mcq, course in mcqs:
        _, prompt, _ = assistants[course].prepare(mcq)
        encoded = encode(lm, prompt)
        right = mcq.letters.index(mcq.answer or "")
        examples.append(Example(encoded, divisors(prompt, encoded, recipe.normalization), right))
    return examples
