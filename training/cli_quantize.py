"""`mcqa-train quantize` and `extract`: a model in 8 or 4 bits, or the difference to its base, and what that saved and cost."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from assistant.cli_options import JsonOption, complain


class Bits(StrEnum):
    """How weights are quantized."""

    int8 = "int8"
    nf4 = "nf4"


def quantize(
    model: Annotated[str, typer.Argument(help="A model's or adapter's folder, GGUF file, or Hub name.")],
    to: Annotated[Bits, typer.Option(help="8 bits (LLM.int8) or 4 (NF4).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where it goes; default: MODEL-int8 or MODEL-nf4.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE_OR_FOLDER", help="Keyed questions to compare both models on.")
    ] = None,
    course: Annotated[
        str | None, typer.Option("--course", "-c", metavar="NAME", help="Show passages of this course with the questions.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions, from all subjects in turn.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model into a folder that `mcqa --model` loads, an adapter merged into its base first.

    With --questions, both models answer them: size, speed, accuracy and likelihoods are shown side by side.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.cli_options import choose_course
    from assistant.items import read_items
    from training import quantize as work
    from training.tables import shown

    # What is wrong with the questions is said before the model is loaded.
    items = read_items(questions, limit=limit) if questions is not None else None
    if course is not None:
        choose_course(course)
    if output is None:
        name = Path(model).expanduser()
        output = (name.parent if name.exists() else Path()) / f"{name.stem if name.suffix == '.gguf' else name.name}-{to.value}"
    made = work.quantize(model, to.value, output, on_status=complain)
    found = None
    if items is not None:
        columns = (TextColumn("Comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with render.progress(*columns) as update:
            found = work.compare(
                model,
                str(output),
                items.items,
                course=course,
                on_progress=lambda done, n: update(completed=done, total=n),
            )
    if as_json:
        print(json.dumps(made | ({} if found is None else {"comparison": work.to_json(found)}), ensure_ascii=False))
        return
    print(
        f"Written to {output}: {made['parameters'] / 1e6:.1f} M parameters, {made['quantized_layers']} layers in {to.value}, "
        f"{made['bytes_on_disk'] / 1e6:.0f} MB on disk, {made['bytes_in_memory'] / 1e6:.0f} MB in memory"
    )
    if found is None:
        print("Compare it with the original on keyed questions: --questions FILE")
    else:
        render.console().print(shown(work.table(found)))
        for question, reason in found.left_out.items():
            complain(f"left out: {question}: {reason}")


def extract(
    model: Annotated[str, typer.Argument(help="A tuned model's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The adapter's folder.")],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What it was made from; default: smollm2-135m-instruct.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Of the adapter: all stages' ranks together lose nothing.")] = 32,
    as_json: JsonOption = False,
) -> None:
    """Write the difference between a tuned model and its base as a LoRA adapter, small enough to hand on.

    `mcqa --model FOLDER` loads it where the base is. Measure it: what its rank does not hold is lost.
    """
    from training.extract import extract as take

    made = take(model, base, rank, output, on_status=complain)
    if as_json:
        print(json.dumps({"output": str(output), **made}))
    else:
        print(
            f"Written to {output}: rank {rank} for {made['layers']} layers, {made['bytes'] / 1e6:.1f} MB; "
            f"{made['left']:.2%} of the difference is not in it"
        )
