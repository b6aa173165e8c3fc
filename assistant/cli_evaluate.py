"""`mcqa evaluate`: variants compared on the same keyed questions, and how well a course's search finds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from assistant.cli_options import CourseOption, Dtype, JsonOption, Method, Quantize, Query, Scoring, choose_course, complain
from ingest.errors import UserError

if TYPE_CHECKING:
    from assistant.evaluate import Report, Variant
    from assistant.items import ItemSet

_SHOWN_BAD = 20  # bad rows that an evaluation names


class _VariantsByDefault(TyperGroup):
    """`mcqa evaluate FILE` is `mcqa evaluate variants FILE`; a file that is named like a command is written ./NAME."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["variants", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(
    cls=_VariantsByDefault,
    help="Compare ways to answer on keyed questions, or measure a course's search. "
    "'mcqa evaluate FILE ...' is short for 'mcqa evaluate variants FILE ...'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@evaluate.command("variants")
def evaluate_variants(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_FOLDER", help="Keyed questions: a file, a folder of files, or MMLU's with test and dev."
        ),
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model folder or a Hub name; default: the one that comes along.")
    ] = None,
    quantize: Annotated[list[Quantize] | None, typer.Option(help="How the weights are kept; default: none.")] = None,
    dtype: Annotated[list[Dtype] | None, typer.Option(help="What the model computes in; default: auto.")] = None,
    course: Annotated[
        list[str] | None, typer.Option("--course", "-c", metavar="NAME", help="A course to search; default: no course.")
    ] = None,
    no_course: Annotated[bool, typer.Option("--no-course", help="Without course material, too; this comes first.")] = False,
    scoring: Annotated[
        list[Scoring] | None, typer.Option(help="Letters or texts; default: what the model is made for.")
    ] = None,
    passages: Annotated[
        list[int] | None, typer.Option(min=0, max=50, help="How many passages; default: what the model is made for.")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, max=20, help="Solved examples of the subject from the folder dev.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions, from all subjects in turn.")] = None,
    subject: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this subject; may be repeated.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where report.md, report.json and reliability.png go."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the report in that folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare models, number formats, courses and scorings on the same questions.

    --model, --dtype, --quantize, --course, --scoring and --passages may be repeated: every combination is one variant.
    The first is the one that the others are compared with.
    """
    from assistant import render, report
    from assistant.evaluate import variants
    from assistant.items import read_items

    if output is not None:
        report.check_folder(output, force=force)
        if not report.can_draw():
            complain(f"note: {report.PLOTS_MISSING}")
    items = read_items(questions, shots=shots, subjects=subject or (), limit=limit)
    _tell_unused(items)
    for name in course or []:  # before anything slow begins
        choose_course(name)
    chosen = variants(
        models=model or [None],
        quantize=[one.value for one in quantize or [Quantize.none]],
        courses=[*([None] if no_course or not course else []), *(course or [])],
        scoring=[one.value for one in scoring] if scoring else [None],
        passages=passages or [None],
        dtypes=[one.value for one in dtype or [Dtype.auto]],
    )
    found = _compare(chosen, items, str(questions), shots)
    if as_json:
        print(json.dumps(report.to_json(found), ensure_ascii=False))
    else:
        render.console().print(render.evaluation(found))
    if output is not None:
        written = report.write_report(found, output)
        complain(f"written: {', '.join(map(str, written))}")
    if found.failed:
        raise UserError(f"{len(found.failed)} of {len(chosen)} variants could not be evaluated: {'; '.join(found.failed)}")
    if items.bad:
        raise UserError(f"{len(items.bad)} rows of {questions} hold no question; correct the lines named above")


def _tell_unused(items: "ItemSet") -> None:
    for line in items.bad[:_SHOWN_BAD]:
        complain(line)
    if len(items.bad) > _SHOWN_BAD:
        complain(f"... and {len(items.bad) - _SHOWN_BAD} more rows that hold no question")
    if items.without_key:
        complain(f"note: questions without a key, left out: {items.without_key}")


def _compare(chosen: "list[Variant]", items: "ItemSet", source: str, shots: int) -> "Report":
    """Evaluate the variants one after the other, with progress; one that cannot be loaded does not cost the others."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.evaluate import compare, evaluate_apart

    results, failed = [], {}
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with render.progress(*columns, name="") as update:
        for index, variant in enumerate(chosen):
            before, total = index * len(items.items), len(chosen) * len(items.items)
            update(completed=before, total=total, name=f"loading {variant.name}")

            def show(done: int, _: int, before: int = before, name: str = variant.name) -> None:
                update(completed=before + done, name=name)

            try:
                results.append(evaluate_apart(variant, items.items, on_progress=show))
            except UserError as error:
                failed[variant.name] = str(error)
    for name, reason in failed.items():
        complain(f"{name}: {reason}")
    if not results:
        raise UserError(f"no variant could be evaluated: {'; '.join(failed)}")
    return compare(results, source=source, shots=shots, failed=failed)


@evaluate.command("retrieval")
def evaluate_retrieval(
    file: Annotated[Path, typer.Argument(help="Questions that name 'document' and 'page', or 'section' (.jsonl, .json).")],
    course: CourseOption = None,
    method: Annotated[list[Method] | None, typer.Option(help="How to search; may be repeated. Default: all.")] = None,
    query: Annotated[list[Query] | None, typer.Option(help="What to search for; may be repeated. Default: options.")] = None,
    sections: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The sections' texts (.jsonl: chapter, title, text), where headings are not enough."),
    ] = None,
    rerank: Annotated[str | None, typer.Option(metavar="MODEL", help="Order the first hits anew by a cross-encoder.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how often a course's search finds the page or section that answers a question.

    Prints recall at 1, 3, 5 and 10 with 95 % intervals, and the mean reciprocal rank.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.retrieval import SectionTexts, evaluate_retrieval, read_places

    questions = read_places(file)[:limit]
    chosen = choose_course(course)
    texts = SectionTexts.read(sections) if sections else None
    chosen.warm_up()
    scores = []
    for one in method or [Method.hybrid, Method.dense, Method.lexical]:
        for kind in query or [Query.options]:
            columns = (TextColumn(f"{one.value}, {kind.value}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with render.progress(*columns) as update:
                scores.append(
                    evaluate_retrieval(
                        chosen,
                        questions,
                        method=one.value,
                        query=kind.value,
                        sections=texts,
                        reranker=rerank,
                        on_progress=lambda done, total: update(completed=done, total=total),
                    )
                )
    if as_json:
        print(json.dumps([score.to_json() for score in scores]))
    else:
        render.console().print(render.retrieval(scores))
