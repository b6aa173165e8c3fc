"""A model, or an adapter on its base → the merged model in 8 or 4 bits, and what that saved and cost."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assistant import evaluate
from assistant.items import Item
from assistant.merge import is_quantized, merge
from assistant.model import LanguageModel, load_model
from assistant.report import megabytes, percent
from assistant.stats import wilson
from ingest.errors import ModelError, UserError
from ingest.home import replaced_folder
from training.loop import write_card
from training.tables import Table, gain, p_value

if TYPE_CHECKING:
    import torch

__all__ = ["Comparison", "Measured", "compare", "merge", "quantize", "table", "to_json"]

_READ = 100  # questions whose options' likelihoods are compared; each has several
_PROBE = "The heart pumps blood through the body; when we run, it beats faster, as muscles need more oxygen."


def quantize(
    source: str | None, to: Literal["int8", "nf4"], output: Path, *, on_status: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Quantize a model into the new folder `output`, which `load_model` loads; returns what came of it, in JSON's types.

    `source` is what `load_model` takes; an adapter is merged first into the base that it was trained on. What was written is
    loaded again, and reads a sentence as before, or there is no folder. Raises UserError where `output` exists or cannot be
    written, ModelError where there is nothing to quantize or it is quantized already.
    """
    if output.exists():
        raise UserError(f"{output} already exists; choose another --output")
    # 16 bits also where the machine computes in 32: what stays unquantized is written as it is.
    lm = load_model(source, quantize=to, dtype="bf16", on_status=on_status)
    name, expected = lm.name, _reading(lm)
    on_status(f"writing {output}")
    try:
        with replaced_folder(output.resolve()) as folder:
            lm.model.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
            # The folder is no adapter any more, and holds its own tokenizer.
            alone: dict[str, Any] = {"base": "", "base_sha256": "", "base_quantization": "none", "tokenizer": ""}
            write_card(folder, lm.card.model_copy(update=alone))
            _released(lm)
            lm = load_model(str(folder), dtype="bf16")
            layers = sum(map(is_quantized, lm.model.modules()))
            if lm.quantization != to or not layers:
                raise ModelError(f"what was written to {output} is not quantized; this is a defect of mcqa-train")
            if not _reading(lm).allclose(expected, atol=1e-2, rtol=1e-2):
                raise ModelError(f"what was written to {output} does not read as before; this is a defect of mcqa-train")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror})") from error
    return {
        "model": name,
        "to": to,
        "folder": str(output),
        "parameters": lm.parameters,
        "quantized_layers": layers,
        "bytes_on_disk": weight_bytes(output),
        "bytes_in_memory": lm.bytes,
    }


def _released(lm: LanguageModel) -> None:
    """Let go of a model's weights, so that the next finds room."""
    lm.model = None
    lm._kept = None
    gc.collect()


def _reading(lm: LanguageModel) -> "torch.Tensor":
    """Return what the model expects after a sentence, as probabilities."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([lm.encode(_PROBE)], device=lm.device)
        found: torch.Tensor = lm.model(input_ids=ids).logits[0, -1].float().softmax(-1).cpu()
    return found


def weight_bytes(folder: Path) -> int:
    """Return how many bytes a model's weights take on disk."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's bytes on disk and in memory, the seconds that a question takes, and how many it answers rightly."""

    name: str
    bytes_on_disk: int
    bytes_in_memory: int
    seconds: float
    right: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same `n` questions; `against` is the second's accuracy against the first's, paired.

    `difference` is the mean absolute difference of the options' log-likelihoods in nats, of `options` options. `left_out` are
    questions that one of them could not answer, and why.
    """

    n: int
    before: Measured
    after: Measured
    against: evaluate.Comparison
    difference: float
    options: int
    left_out: dict[str, str]


def compare(
    before: str | None,
    after: str | None,
    items: Sequence[Item],
    *,
    course: str | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Comparison:
    """Ask two models, which `load_model` takes, the same questions, one after the other; only one is in memory at a time.

    Both answer in this process, each after a question that is not timed, with passages of `course` if one is named. Raises
    UserError where a model cannot be loaded or no question was answered by both.
    """
    measured = []
    for place, model in enumerate((before, after)):
        measured.append(
            _measure(model, items, course, lambda done, n, place=place: on_progress(place * n + done, 2 * n))  # type: ignore[misc]
        )
    (first, sizes, likelihoods), (second, other_sizes, other_likelihoods) = measured
    found = evaluate.compare([first, second])
    one, other = (
        Measured(summary.name, *size, summary.seconds, summary.correct)
        for summary, size in zip(found.summaries, (sizes, other_sizes), strict=True)
    )
    differences = [
        abs(a - b)
        for id_ in likelihoods.keys() & other_likelihoods.keys()
        for a, b in zip(likelihoods[id_], other_likelihoods[id_], strict=True)
    ]
    against = found.summaries[1].against_first
    assert against is not None  # noqa: S101 -- only the first summary has none
    difference = sum(differences) / len(differences)
    return Comparison(found.n, one, other, against, difference, len(differences), dict(found.left_out))


def _measure(
    model: str | None, items: Sequence[Item], course: str | None, on_progress: Callable[[int, int], None]
) -> tuple[evaluate.Result, tuple[int, int], dict[str, tuple[float, ...]]]:
    """Return a model's answers, its bytes on disk and in memory, and its options' log-likelihoods by question."""
    from assistant.answer import Assistant
    from assistant.scoring import score
    from ingest.course import Course

    lm = load_model(model)
    assistant = Assistant(lm, Course.open(course) if course else None)
    result = evaluate.evaluate(evaluate.Variant(model, course=course), items, lambda _: assistant, on_progress)
    answered = {outcome.id for outcome in result.outcomes if not outcome.error}
    read = [item for item in items if item.id in answered][:_READ]
    prompts = [assistant.prepare(item.mcq, item.examples)[1] for item in read]
    scores = score(lm, prompts, assistant.scoring, "sum")
    sizes = weight_bytes(lm.folder) if lm.folder else 0, lm.bytes
    _released(lm)
    return result, sizes, {item.id: found.scores for item, found in zip(read, scores, strict=True)}


def table(found: Comparison) -> Table:
    """Return the comparison as a table of two rows."""
    rows = []
    for one, against in ((found.before, None), (found.after, found.against)):
        sizes = megabytes(one.bytes_on_disk), megabytes(one.bytes_in_memory)
        speed = f"{1 / one.seconds:.1f}"
        accuracy = percent(one.right, found.n)
        differs = "–" if against is None else f"{found.difference:.3f}"
        rows.append((one.name, *sizes, speed, accuracy, gain(against, found.n), p_value(against), differs))
    return Table(
        f"Before and after quantization, on the same {found.n} questions",
        ("model", "disk, MB", "memory, MB", "questions/s", "accuracy, %", "gain, points", "p", "difference, nats"),
        rows,
        (
            ("accuracy", "with Wilson's 95 % interval"),
            ("gain", "in accuracy, with Agresti and Min's 95 % interval for paired answers; p: McNemar's exact test"),
            ("difference", f"mean absolute difference of the log-likelihoods of {found.options} options"),
        ),
    )


def to_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison in types that JSON knows, accuracies with their 95 % intervals."""
    record = asdict(found)
    for name, one in (("before", found.before), ("after", found.after)):
        record[name]["accuracy"] = {"value": one.right / found.n, "interval": list(wilson(one.right, found.n)), "n": found.n}
        record[name]["questions_a_second"] = 1 / one.seconds
    return record
