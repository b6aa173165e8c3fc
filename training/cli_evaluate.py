"""`mcqa-train evaluate`: a tuned model beside the one that it was made from."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assistant.cli_options import Dtype, DtypeOption, JsonOption, Quantize, ScoringOption, complain
from ingest.errors import UserError

if TYPE_CHECKING:
    from assistant.quantization import DtypeName, Quantization
    from training.evaluate import Variant
    from training.pairs import Pair

_SHOWN = 5  # bad rows that are named on the terminal; the report names all


class Form(StrEnum):
    """How conversations become text."""

    chat = "chat"
    alpaca = "alpaca"
    plain = "plain"
    verbatim = "verbatim"


def evaluate(
    model: Annotated[str, typer.Argument(help="A model's or adapter's folder, GGUF file, or Hub name.")],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model before training, which the other is compared with.")
    ] = None,
    quantize: Annotated[
        list[Quantize] | None, typer.Option(help="How MODEL's weights are kept; may be repeated. Default: none.")
    ] = None,
    dtype: DtypeOption = Dtype.auto,
    questions: Annotated[
        list[Path] | None, typer.Option(metavar="FILE_OR_FOLDER", help="Keyed questions; may be repeated.")
    ] = None,
    course: Annotated[
        str | None, typer.Option("--course", "-c", metavar="NAME", help="Show passages of this course with the questions.")
    ] = None,
    passages: Annotated[int, typer.Option(min=0, max=50, help="How many passages.")] = 3,
    scoring: ScoringOption = None,
    preferences: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Held-out preferences, in any layout; may be repeated.")
    ] = None,
    responses: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Good answers: preferences, or TruthfulQA's CSV; may be repeated."),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="How conversations become text, as in training.")] = Form.chat,
    beta: Annotated[float, typer.Option(min=1e-6, help="The weight of rewards, as in training.")] = 0.1,
    max_length: Annotated[
        int, typer.Option(min=8, help="Tokens of prompt and answer together; longer answers are cut.")
    ] = 1024,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many items of each file.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where report.md, report.json and evaluation.png go."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the report in that folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on questions, preferences and responses, beside its base on the same items.

    Questions are answered as `mcqa` answers them. Preferences give the implicit rewards over --base, and how often the chosen
    answer is the likelier one. Responses give the cross-entropy of good answers.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.report import PLOTS_MISSING, can_draw, check_folder
    from training import report
    from training.evaluate import evaluate as measure
    from training.recipe import Evaluation, File, Questions
    from training.tables import shown

    if output is not None:
        check_folder(output, force=force)
        if not can_draw():
            complain(f"note: {PLOTS_MISSING}")
    pairs = [pair for path in preferences or [] for pair in _pairs(path, limit)]
    wanted = Evaluation(
        kind="evaluate",
        questions=tuple(Questions(file=path, course=course, use=limit) for path in questions or []),
        scoring=scoring.value if scoring else None,
        passages=passages,
        responses=tuple(File(file=path, use=limit) for path in responses or []),
    )
    columns = (TextColumn("Evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with render.progress(*columns) as update:
        found = measure(
            _variants(model, base, [one.value for one in quantize or [Quantize.none]], dtype.value),
            wanted,
            pairs=pairs,
            form=form.value,
            beta=beta,
            max_length=max_length,
            on_progress=lambda done, n: update(completed=done, total=n),
        )
    if as_json:
        print(json.dumps(report.to_json(found), ensure_ascii=False))
    else:
        out = render.console()
        for line in report.models(found):
            out.print(render.plain(line))
        for table in report.tables(found):
            out.print("", shown(table))
    left = report.left_out(found)
    for line in left[:_SHOWN]:
        complain(f"left out: {line}")
    if len(left) > _SHOWN:
        complain(f"left out: ... and {len(left) - _SHOWN} more")
    if output is not None:
        complain(f"written: {', '.join(map(str, report.write_report(found, output)))}")


def _variants(model: str, base: str | None, kinds: "Sequence[Quantization]", dtype: "DtypeName") -> "list[Variant]":
    from training.evaluate import Variant

    short = Path(model).name
    tuned = [Variant(short if kind == "none" else f"{short}, {kind}", model, kind, dtype) for kind in kinds]
    return tuned if base is None else [Variant("base", base, dtype=dtype), *tuned]


def _pairs(path: Path, limit: int | None) -> "list[Pair]":
    """Return the pairs of a file, at most `limit`, drawn by what they say; bad rows and ties are named and left out."""
    from training.preferences import read_preferences
    from training.prepare import in_random_order

    found, bad = [], []
    for row in read_preferences(path):
        if row.pair is None:
            bad.append(f"{path.name} row {row.line}: {row.error}")
        elif not (row.pair.chosen.strip() and row.pair.rejected.strip()):
            bad.append(f"{row.pair.place}: an answer is empty")
        elif row.pair.tied or row.pair.chosen.strip() == row.pair.rejected.strip():
            bad.append(f"{row.pair.place}: no answer is preferred")
        else:
            found.append(row.pair)
    if not found:
        raise UserError(f"{path} holds no preference" + (f"; {bad[0]}" if bad else ""))
    for line in bad[:_SHOWN]:
        complain(f"left out: {line}")
    if len(bad) > _SHOWN:
        complain(f"left out: ... and {len(bad) - _SHOWN} more rows of {path.name}")
    return in_random_order(found, 0)[:limit]
