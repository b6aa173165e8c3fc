"""A recipe → a tuned, quantized and evaluated model folder, stage by stage; a run that was stopped goes on where it was."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ingest.errors import UserError
from training import gather
from training.datacard import write as write_pairs
from training.loop import Job
from training.pairs import Pair
from training.preflight import refuse, steps_of
from training.prepare import Prepared
from training.recipe import DPO, SFT, Evaluation, MCQTuning, Quantization, Recipe, Training, find

_STATE = "run.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "mcqa-assistant")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run changes about its recipe: where data lies, another model or tokenizer, fewer steps; or going on with it."""

    data: Path | None = None
    model: str | None = None
    tokenizer: str | None = None
    max_steps: int | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of a stage: what is trained on, what is looked at meanwhile, and what the evaluation asks at the end."""

    train: Sequence[Any]
    held: Sequence[Any]
    test: Sequence[Any]
    prepared: Prepared | None = None
    notes: tuple[str, ...] = ()


def run(
    recipe: Recipe, output: Path, options: Options, on_status: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Carry out all stages of a recipe, or of each variant of its sweep, in `output`; yields lines about what came out.

    `output/model` is the model at the end, `output/N-KIND` what each stage leaves behind. Raises UserError before anything
    slow where recipe, data or folder cannot be used.
    """
    variants = recipe.variants()
    for _, variant in variants:
        refuse(variant)
    if len(variants) == 1:
        yield from _run_one(variants[0][1], output, options, on_status)
        return
    _check(output, options.resume)
    for name, variant in variants:
        yield f"== {name}"
        done = output / name
        again = options.resume and done.exists()
        yield from _run_one(variant, done, Options(**{**_fields(options), "resume": again}), on_status)
    yield from _compared(output, [name for name, _ in variants])


def check_data(recipe: Recipe, data: Path | None) -> list[str]:
    """Read all data of a recipe without a model; returns a line for each stage. Raises UserError on what is missing."""
    lines = []
    for number, stage in enumerate(recipe.stages, start=1):
        if isinstance(stage, Training):
            parts = _gather(recipe, stage, data)
            steps = steps_of(stage.fitting, len(parts.train))
            lines.append(f"{number}-{stage.kind}: {len(parts.train)} rows to train on, {len(parts.held)} held out, {steps} steps")
            lines += [f"  {note}" for note in parts.notes]
        elif isinstance(stage, Evaluation):
            gather.questions(recipe, stage.questions, data)
            for file in stage.responses:
                find(recipe, file.file, data, file.origin)
    return lines


def _run_one(recipe: Recipe, output: Path, options: Options, on_status: Callable[[str], None]) -> Iterator[str]:
    settings = _settings(recipe, options)
    _check(output, options.resume, settings)
    gathered = [_gather(recipe, stage, options.data) if isinstance(stage, Training) else None for stage in recipe.stages]
    for stage in recipe.stages:
        if isinstance(stage, Evaluation):
            gather.questions(recipe, stage.questions, options.data)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (output / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
    done: list[str] = _read_state(output)["done"] if (output / _STATE).is_file() else []
    tested: Sequence[Pair] = ()
    for number, (stage, parts) in enumerate(zip(recipe.stages, gathered, strict=True), start=1):
        name = f"{number}-{stage.kind}"
        if isinstance(stage, DPO) and parts is not None and stage.data:
            tested = parts.test
        if name in done:
            yield f"{name}: done before"
            continue
        _write_state(output, settings, done)
        folder = output / name
        folder.mkdir(exist_ok=True)
        model = str(output / "model") if (output / "model").is_dir() else (options.model or recipe.model)
        job = Job(
            folder, model, recipe.architecture, options.tokenizer or recipe.tokenizer, recipe.format, recipe.seed,
            resume=options.resume, max_steps=options.max_steps, on_status=on_status,
        )  # fmt: skip
        if isinstance(stage, Evaluation):
            yield from _evaluate(recipe, stage, job, options, tested)
        elif isinstance(stage, Quantization):
            yield from _quantize(stage, job)
        else:
            assert parts is not None  # noqa: S101 -- every trained stage was gathered
            yield from _train(recipe, stage, job, parts)
        if job.model_folder.is_dir():
            _promote(job.model_folder, output / "model")
        done.append(name)
        _write_state(output, settings, done)


def _gather(recipe: Recipe, stage: Training, data: Path | None) -> Parts:
    if isinstance(stage, DPO) and stage.data:
        prepared = gather.preferences(recipe, stage, data)
        train, held = prepared.parts["train"], prepared.parts.get("valid", prepared.parts["test"])
        return Parts(train, held, prepared.parts["test"], prepared, tuple(_notes(prepared)))
    if isinstance(stage, SFT):
        return Parts(*gather.instructions(recipe, stage, data))
    wanted = stage.questions if isinstance(stage, DPO) else stage.data  # type: ignore[attr-defined]
    parts = gather.split_questions(gather.questions(recipe, wanted, data), stage.split, recipe.seed)
    return Parts(parts[0], parts[1], parts[-1])


def _notes(prepared: Prepared) -> Iterator[str]:
    for source in prepared.sources:
        for row in source.bad[:3]:
            yield f"left out: {source.name} row {row.line}: {row.error}"
        if len(source.bad) > 3:
            yield f"left out: {len(source.bad) - 3} more rows of {source.name}"
        if isinstance(source.share, int) and source.used < source.share:
            yield f"{source.name} has {source.used} usable pairs, fewer than the {source.share} asked for"
    for one in prepared.removed:
        if one.count:
            yield f"left out as {one.filter}: {one.count} ({'; '.join(one.examples)})"


def _check(output: Path, resume: bool, settings: dict[str, Any] | None = None) -> None:
    """Raise UserError where the folder must not be written to, or holds another run than the one to go on with."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        if resume:
            raise UserError(f"there is no run in {output} to go on with; leave out --resume")
        return
    if not resume:
        raise UserError(f"{output} already exists; choose another --output, or go on with its run by --resume")
    if settings is None:
        return
    before = _read_state(output)["settings"]
    changed = [key for key in settings if settings[key] != before.get(key)]
    if changed:
        raise UserError(f"{output} holds a run with other settings ({', '.join(changed)}); choose another --output")


def _settings(recipe: Recipe, options: Options) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": None if options.data is None else str(options.data.resolve()),
        "model": options.model,
        "tokenizer": options.tokenizer,
        "max_steps": options.max_steps,
    }


def _read_state(output: Path) -> dict[str, Any]:
    try:
        state = json.loads((output / _STATE).read_text(encoding="utf-8"))
        return {"settings": dict(state["settings"]), "done": list(state["done"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{output} holds no run of a recipe (no readable {_STATE}); choose another --output") from error


def _write_state(output: Path, settings: dict[str, Any], done: list[str]) -> None:
    made = output / f"{_STATE}.new"
    made.write_text(json.dumps({"settings": settings, "done": done}, indent=2) + "\n", encoding="utf-8")
    made.replace(output / _STATE)


def _promote(made: Path, target: Path) -> None:
    """Put a stage's model where the run's model is; the one before goes when the new one stands."""
    before = target.with_name(f"{target.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        target.rename(before)
    made.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def environment() -> dict[str, Any]:
    """Return what a run's numbers may depend on: versions, processor, and what computes."""
    import torch

    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(), "system": platform.system(), "device": device, "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "versions": versions,
    }  # fmt: skip


def _fields(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}
