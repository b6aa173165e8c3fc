"""A recipe → a tuned, quantized and evaluated model folder, stage by stage; a run that was stopped goes on where it was."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from assistant.report import table as report_table
from assistant.stats import percent_with_interval
from ingest.errors import UserError
from training import gather
from training.datacard import write as write_pairs
from training.loop import Job, write_metrics
from training.pairs import Pair, normalize, prompt_key
from training.preflight import Sizes, processes, refuse, steps_of
from training.prepare import Prepared
from training.recipe import DPO, SFT, Evaluation, File, MCQTuning, Quantization, Recipe, Training, find

_STATE, _MODEL = "run.json", "model"
_SAMPLED = 200  # rows by which tokens are estimated
_UNQUANTIZED = "model-16bit"  # what a quantized model was before
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


def run(recipe: Recipe, output: Path, options: Options, on_status: Callable[[str], None] = lambda _: None) -> Iterator[str]:
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
    if leads():
        _check(output, options.resume)
    for name, variant in variants:
        yield f"== {name}"
        done = output / name
        yield from _run_one(variant, done, replace(options, resume=options.resume and done.exists()), on_status)
    yield from _compared(output, [name for name, _ in variants])


def check_data(recipe: Recipe, data: Path | None) -> list[str]:
    """Read all data of a recipe without a model; returns what each stage will train on. Raises UserError on what is missing."""
    return list(_planned(recipe, _gather_all(recipe, data)))


def _gather_all(recipe: Recipe, data: Path | None) -> "list[Parts | None]":
    for stage in recipe.stages:
        if isinstance(stage, Evaluation):
            gather.questions(recipe, stage.questions, data)
            for file in stage.responses:
                find(recipe, file.file, data, file.origin)
    return [_gather(recipe, stage, data) if isinstance(stage, Training) else None for stage in recipe.stages]


def _run_one(recipe: Recipe, output: Path, options: Options, on_status: Callable[[str], None]) -> Iterator[str]:
    settings = _settings(recipe, options)
    recipe = _shortened(recipe, options.max_steps)
    if leads():
        _check(output, options.resume, settings)
    gathered = _gather_all(recipe, options.data)
    model = options.model or recipe.model
    yield from _planned(recipe, gathered, Sizes(recipe, model, options.tokenizer or recipe.tokenizer, on_status))
    done: list[str] = []
    if leads():
        output.mkdir(parents=True, exist_ok=True)
        done = _read_state(output)["done"] if (output / _STATE).is_file() else []
        _write_state(output, settings, done)
        (output / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (output / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
    _meet()
    done = _read_state(output)["done"]
    for number, (stage, parts) in enumerate(zip(recipe.stages, gathered, strict=True), start=1):
        name = f"{number}-{stage.kind}"
        if name in done:
            yield f"{name}: done before"
            continue
        folder = output / name
        folder.mkdir(exist_ok=True)
        job = Job(
            folder, _current(output) or model, recipe.architecture, options.tokenizer or recipe.tokenizer,
            recipe.format, recipe.seed,
            resume=options.resume, on_status=on_status if leads() else lambda _: None,
        )  # fmt: skip
        if parts is not None:
            yield from _train(stage, job, parts)  # type: ignore[arg-type]
        elif leads() and isinstance(stage, Quantization):
            yield from _quantize(stage, job)
        elif leads() and isinstance(stage, Evaluation):
            before = list(zip(recipe.stages[: number - 1], gathered, strict=False))
            yield from _evaluate(recipe, stage, job, options, output, before)
        _meet()
        done = [*done, name]
        if leads():
            if job.model_folder.is_dir():
                _promote(job.model_folder, output, keep=isinstance(stage, Quantization))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # they were for going on with this stage
            _write_state(output, settings, done)
        _meet()
    yield f"model: {output / _MODEL}"


def _shortened(recipe: Recipe, most: int | None) -> Recipe:
    """Return the recipe with no stage of more than `most` steps."""

    def shortened(stage: Any) -> Any:
        if most is None or not isinstance(stage, Training):
            return stage
        fitting = stage.fitting.model_copy(update={"max_steps": min(most, stage.fitting.max_steps or most)})
        return stage.model_copy(update={"fitting": fitting})

    return recipe.model_copy(update={"stages": tuple(map(shortened, recipe.stages))})


def leads() -> bool:
    """Whether this process is the one of a launch with several that writes what all share."""
    return int(os.environ.get("RANK", "0")) == 0


def _meet() -> None:
    """Wait for the other processes of a launch."""
    if processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _planned(recipe: Recipe, gathered: "Sequence[Parts | None]", sizes: Sizes | None = None) -> Iterator[str]:
    """Say what each stage will train on, and with the model's `sizes` what that will take."""
    for number, (stage, parts) in enumerate(zip(recipe.stages, gathered, strict=True), start=1):
        if parts is None or not isinstance(stage, Training):
            continue
        name = f"{number}-{stage.kind}"
        yield f"{name}: {len(parts.train)} rows to train on, {len(parts.held)} held out"
        yield from (f"  {note}" for note in parts.notes)
        if sizes is None:
            yield f"  {steps_of(stage.fitting, len(parts.train))} steps"
        else:
            tokens = _tokens(recipe, stage, parts.train[:_SAMPLED], sizes.tokenizer)
            yield f"  {sizes.plan(stage, recipe.architecture, len(parts.train), tokens)}"


def _tokens(recipe: Recipe, stage: Training, rows: Sequence[Any], tokenizer: Any) -> float | None:
    """Return how many tokens a row is read as, on average; None where that depends on the passages found."""
    from training.rows import answer_rows, pair_rows

    longest = stage.fitting.max_length
    if isinstance(stage, SFT):
        found = answer_rows([(row.prompt, row.answer, row.place) for row in rows], tokenizer, recipe.format, longest)
    elif isinstance(stage, DPO) and stage.data:
        found = pair_rows(rows, tokenizer, recipe.format, longest)
    else:
        return None
    return sum(row.packed for row in found.encoded) / max(1, len(found.encoded))


def _train(stage: Training, job: Job, parts: Parts) -> Iterator[str]:
    """Carry out a trained stage; its folder has the data, the log, the curves, the metrics and the model."""
    from training.curves import draw
    from training.log import LOG
    from training.progress import watching

    train, held = parts.train, parts.held
    if parts.prepared is not None:
        if leads():
            write_pairs(parts.prepared, job.folder / "data")
        yield from _overlap(parts.prepared)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.folder / "logs")  # the only way to tell transformers' callback
    with watching(job) as callbacks:
        if isinstance(stage, SFT):
            from training.sft import run_sft

            metrics = run_sft(stage, job, train, held, callbacks)
        elif isinstance(stage, MCQTuning):
            from assistant.model import load_model
            from training.examples import examples
            from training.mcq import run_mcq

            lm = load_model(job.model, tokenizer=job.tokenizer, on_status=job.on_status)
            job.on_status(f"finding passages for {len(train) + len(held)} questions")
            rows = [examples(lm, stage, part, job.on_status) for part in (train, held)]
            del lm
            metrics = run_mcq(stage, job, rows[0], rows[1], callbacks)
        else:
            assert isinstance(stage, DPO)  # noqa: S101 -- the last kind that trains
            from training.dpo import run_dpo

            if stage.questions:
                train, held = _option_pairs(stage, job, (train, held))
            metrics = run_dpo(stage, job, train, held, callbacks)
    log = job.folder / LOG
    if leads() and find_spec("matplotlib") is not None and log.is_file():
        draw(log, job.folder / "curves.png")
    yield f"{job.folder.name}: {_told(metrics)}"


def _option_pairs(stage: DPO, job: Job, parts: Sequence[Sequence[gather.Asked]]) -> list[list[Pair]]:
    from assistant.model import load_model
    from training.option_pairs import option_pairs

    lm = load_model(job.model, tokenizer=job.tokenizer, on_status=job.on_status)
    job.on_status(f"finding passages for {sum(map(len, parts))} questions")
    return [option_pairs(lm, part, stage.scoring, stage.passages, hardest=stage.hardest) for part in parts]


def _told(metrics: dict[str, Any]) -> str:
    """Return what a stage's metrics come to, in a line."""
    held = metrics.get("held_out", {})
    if "after" in held:  # MCQ tuning
        before, after = (held[when] for when in ("before", "after"))
        n = after["n"]
        return (
            f"held-out accuracy {percent_with_interval(before['right'], n)} before, "
            f"{percent_with_interval(after['right'], n)} after; {metrics['seconds']:.0f} s"
        )
    shown = [f"{name} {held[name]:.4g}" for name in ("loss", "rewards/accuracies", "rewards/margins") if name in held]
    return f"held out: {', '.join(shown) or 'nothing measured'}; {metrics['steps']} steps in {metrics['seconds']:.0f} s"


def _overlap(prepared: Prepared) -> Iterator[str]:
    """Say how many held-out prompts are trained on too, where a split by row lets that happen."""
    trained = {prompt_key(pair) for pair in prepared.parts["train"]}
    for name, pairs in prepared.parts.items():
        prompts = {prompt_key(pair) for pair in pairs}
        if name != "train" and prompts & trained:
            yield (
                f"warning: {len(prompts & trained)} of the {len(prompts)} prompts of {name} are also trained on, so results on "
                "it are too good; split by prompt keeps them apart"
            )


def _quantize(stage: Quantization, job: Job) -> Iterator[str]:
    from training.quantize import quantize

    found = quantize(job.model, stage.to, job.model_folder, on_status=job.on_status)
    write_metrics(job.folder, found)
    yield f"{job.folder.name}: {found['quantized_layers']} layers in {stage.to}, {found['bytes_on_disk'] / 1e6:.1f} MB on disk"


def _evaluate(
    recipe: Recipe,
    stage: Evaluation,
    job: Job,
    options: Options,
    output: Path,
    before: "Sequence[tuple[Any, Parts | None]]",
) -> Iterator[str]:
    """Measure the model before, after, and after quantization, on what the recipe says and on what no stage trained on."""
    from assistant.model import load_model
    from training import report
    from training.evaluate import Variant, evaluate

    variants = [Variant("before", options.model or recipe.model), Variant("after", job.model)]
    if (output / _UNQUANTIZED).is_dir():
        variants = [variants[0], Variant("after, 16 bits", str(output / _UNQUANTIZED)), Variant("after, quantized", job.model)]
    yield from _trained_on(recipe, stage, options.data, before)
    preferred = [(one, parts) for one, parts in before if isinstance(one, DPO) and one.data and parts is not None]
    last = preferred[-1] if preferred else None
    if last is not None and stage.responses:  # the good answers that no stage trained on
        number = [one for one, _ in before].index(last[0]) + 1
        held = File(file=(output / f"{number}-dpo" / "data" / "test.jsonl").resolve())
        stage = stage.model_copy(update={"responses": (*stage.responses, held)})
    found = evaluate(
        variants,
        stage,
        pairs=last[1].test if last is not None else (),
        form=recipe.format,
        beta=last[0].beta if last is not None else 0.1,
        max_length=last[0].fitting.max_length if last is not None else 1024,
        seed=recipe.seed,
        locate=lambda source: find(recipe, source.file or Path(), options.data, source.origin),
        load=lambda variant: load_model(
            variant.model, quantize=variant.quantize, tokenizer=job.tokenizer if variant.name == "before" else None
        ),
    )
    report.write_report(found, job.folder)
    yield f"{job.folder.name}: {job.folder / 'report.md'}"


def _trained_on(
    recipe: Recipe, stage: Evaluation, data: Path | None, before: "Sequence[tuple[Any, Parts | None]]"
) -> Iterator[str]:
    """Say how many of the questions that are evaluated on a stage trained on."""
    trained = {
        normalize(row.mcq.question)
        for _, parts in before
        for row in (parts.train if parts is not None else ())
        if isinstance(row, gather.Asked)
    }
    for one in stage.questions if trained else ():
        asked = gather.questions(recipe, [one], data)
        known = sum(normalize(row.mcq.question) in trained for row in asked)
        if known:
            yield f"warning: {known} of the {len(asked)} questions of {one.name} are trained on too: its results are too good"


def _compared(output: Path, names: Sequence[str]) -> Iterator[str]:
    """Write what the variants of a sweep came to beside each other, in sweep.md."""
    rows = []
    for name in names:
        for file in sorted((output / name).glob("*/metrics.json")):
            held = json.loads(file.read_text(encoding="utf-8")).get("held_out", {})
            held = held.get("after", held)
            numbers = {key: value for key, value in held.items() if isinstance(value, int | float)}
            rows += (
                [[name, file.parent.name, ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())]] if numbers else []
            )
    text = report_table(["variant", "stage", "held out"], rows)
    (output / "sweep.md").write_text(f"# Held out, by variant\n\n{text}\n", encoding="utf-8")
    yield f"compared: {output / 'sweep.md'}"


def _gather(recipe: Recipe, stage: Training, data: Path | None) -> Parts:
    if isinstance(stage, DPO) and stage.data:
        prepared = gather.preferences(recipe, stage, data)
        train, held = prepared.parts["train"], prepared.parts.get("valid", prepared.parts["test"])
        return Parts(train, held, prepared.parts["test"], prepared, tuple(_notes(prepared)))
    if isinstance(stage, SFT):
        rows, notes = gather.instructions(recipe, stage, data)
        return Parts(rows[0], rows[1], rows[-1], notes=tuple(notes))
    assert isinstance(stage, DPO | MCQTuning)  # noqa: S101 -- the last kinds that train
    asked = gather.questions(recipe, stage.questions if isinstance(stage, DPO) else stage.data, data)
    if not stage.held:
        parts = gather.split_questions(asked, stage.split, recipe.seed)
        return Parts(parts[0], parts[1], parts[-1])
    apart = gather.questions(recipe, stage.held, data)
    others = gather.without(asked, apart)
    known = len(asked) - len(others)
    return Parts(others, apart, apart, notes=(f"left out: {known} questions that are held out as well",) if known else ())


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
    with suppress(ValueError):  # what cannot be read any more is another recipe
        # Keys that recipes did not have yet when the run began stand at their defaults.
        before["recipe"] = Recipe.model_validate(before["recipe"]).model_dump(mode="json")
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


def _current(output: Path) -> str | None:
    """Return the folder of the model as the last finished stage left it."""
    return next((str(output / name) for name in (_MODEL, _UNQUANTIZED) if (output / name).is_dir()), None)


def _promote(made: Path, output: Path, *, keep: bool) -> None:
    """Put a stage's model where the run's model is; the one before is kept, or goes when the new one stands."""
    target, before = output / _MODEL, output / (_UNQUANTIZED if keep else f"{_MODEL}.before")
    if target.exists():
        shutil.rmtree(before, ignore_errors=True)
        target.rename(before)
    made.rename(target)
    if not keep:
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
