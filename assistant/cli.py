"""`mcqa`: index course material, answer questions about it, one by one, as a batch, or on a page."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from assistant.formats import Format
from ingest.errors import CourseError, UserError

# Each command imports what it needs: `mcqa --help` must not load a deep-learning library.
if TYPE_CHECKING:
    from assistant.answer import Assistant
    from assistant.evaluate import Report, Variant
    from assistant.items import ItemSet
    from assistant.mcq import MCQ
    from assistant.model import ScoringKind
    from ingest.chunk import SplitSettings
    from ingest.course import Course

_SHOWN_BAD = 20  # bad rows that an evaluation names

app = typer.Typer(
    name="mcqa",
    help="Answer multiple-choice questions about a course, with a probability for each option and the page it rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
app.add_typer(evaluate, name="evaluate")


class Method(StrEnum):
    """How passages are found."""

    hybrid = "hybrid"
    dense = "dense"
    euclidean = "euclidean"
    lexical = "lexical"


class Query(StrEnum):
    """What is searched for: the question alone, with all its options, or with each option by itself."""

    question = "question"
    options = "options"
    each = "each"


class Scoring(StrEnum):
    """How options are scored."""

    letter = "letter"
    cloze = "cloze"


class Dtype(StrEnum):
    """What numbers a model computes in."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Quantize(StrEnum):
    """How a model's weights are kept."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"
    int8_dynamic = "int8-dynamic"


CourseOption = Annotated[str | None, typer.Option("--course", "-c", metavar="NAME", help="The course to search.")]
NoCourseOption = Annotated[bool, typer.Option("--no-course", help="Answer without course material.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A model's or adapter's folder, GGUF file, or Hub name; default: the embedded model."),
]
QuantizeOption = Annotated[Quantize, typer.Option(help="Keep the model's weights in 8 or 4 bits.")]
DtypeOption = Annotated[
    Dtype, typer.Option(help="What the model computes in; auto is the fastest that this machine really has.")
]
PermuteOption = Annotated[
    int, typer.Option(min=1, max=10, help="Ask under so many orders of the options and average (letter scoring).")
]
ScoringOption = Annotated[
    Scoring | None, typer.Option(help="Score option letters or option texts; default: what the model is made for.")
]
PassagesOption = Annotated[
    int | None, typer.Option(min=0, max=50, help="How many passages the model reads; default: what it is made for.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def main() -> None:
    """Run the command line; an error that the user can act on becomes one line and exit status 1."""
    run(app)


def run(application: typer.Typer) -> None:
    """Run `application` with the one error boundary that the project's commands share."""
    try:
        application()
    except UserError as error:
        _complain(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _complain(message: str) -> None:
    """Print one line on standard error, without the control characters of a file or question that it may quote."""
    printable = "".join(character if character.isprintable() else " " for character in message)
    print(" ".join(printable.split()), file=sys.stderr)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"mcqa {version('mcqa-assistant')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="The folder that holds the course's files, in subfolders too.")],
    course: Annotated[str, typer.Option("--course", "-c", metavar="NAME", help="The name to index it under.")],
    plan: Annotated[bool, typer.Option("--plan", help="Show what would happen, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to the removal of more than half of the documents.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Start again from an empty index.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Read again the files that could not be read before.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another indexing of this course to end.")] = False,
    password: Annotated[str, typer.Option(metavar="TEXT", help="The password of encrypted PDFs; '-' asks for it.")] = "",
    ocr: Annotated[bool, typer.Option("--ocr", help="Recognize the text of scanned pages (needs tesseract).")] = False,
    passage_tokens: Annotated[int | None, typer.Option(min=16, max=254, help="The length of a passage in tokens.")] = None,
    overlap_tokens: Annotated[int | None, typer.Option(min=0, max=127, help="What two neighbors may share of it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a course hold exactly the files in FOLDER: PDF, DOCX, PPTX, HTML, Markdown and text."""
    from dataclasses import asdict

    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from ingest.course import Course
    from ingest.read import ReadOptions
    from ingest.sync import Progress as Standing
    from ingest.sync import SyncPlan

    if ocr:
        from ingest.ocr import require

        require()
    if password == "-":  # noqa: S105 -- a mark, no password
        password = typer.prompt("Password", hide_input=True, err=True)
    options = ReadOptions(password, ocr)
    chosen = Course(course, settings=_split_settings(passage_tokens, overlap_tokens))
    if plan:
        planned = chosen.plan(folder, rebuild=rebuild, retry=retry, options=options)
        if as_json:
            print(json.dumps({"course": course, **asdict(planned)}, ensure_ascii=False))
        else:
            render.console().print(render.plan(course, planned))
        return

    def confirm(planned: SyncPlan) -> bool:
        if yes or not sys.stdin.isatty():
            return yes
        render.console(stderr=True).print(render.plan(course, planned))
        return typer.confirm(f"Remove {len(planned.removed)} of {planned.known} documents from the index?", err=True)

    columns = (
        TextColumn("Indexing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with render.progress(*columns, counts="") as update:

        def show(standing: Standing) -> None:
            update(total=1.0, completed=standing.fraction, counts=standing.words)

        report = chosen.sync(
            folder, rebuild=rebuild, retry=retry, options=options, confirm=confirm, wait=wait, on_progress=show
        )
    if as_json:
        print(json.dumps({"course": course, **asdict(report)}, ensure_ascii=False))
    else:
        render.console().print(render.sync(course, report))
    if report.failed:
        raise CourseError(f"{len(report.failed)} of the files could not be indexed: {', '.join(report.failed)}")


def _split_settings(passage_tokens: int | None, overlap_tokens: int | None) -> "SplitSettings | None":
    given = {"passage_tokens": passage_tokens, "overlap_tokens": overlap_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    from pydantic import ValidationError

    from ingest.chunk import SplitSettings

    try:
        return SplitSettings.model_validate(given)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for; a question with its options works best.")],
    course: CourseOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many passages to show.")] = 5,
    method: Annotated[Method, typer.Option(help="By meaning (dense), by words (lexical) or both (hybrid).")] = Method.hybrid,
    document: Annotated[list[str] | None, typer.Option(metavar="PATH", help="Only in this document; may be repeated.")] = None,
    pages: Annotated[str | None, typer.Option(metavar="N-M", help="Only on these pages.")] = None,
    neighbors: Annotated[int, typer.Option(min=0, max=20, help="Join so many passages before and after each.")] = 0,
    rerank: Annotated[str | None, typer.Option(metavar="MODEL", help="Order the first hits anew by a cross-encoder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the passages of a course that fit a query, with how relevant they are."""
    from dataclasses import asdict

    from assistant import render

    chosen = _choose_course(course)
    hits = chosen.search(
        query, limit, method=method.value, documents=document, pages=_page_range(pages), neighbors=neighbors, reranker=rerank
    )
    if as_json:
        print(json.dumps([asdict(hit) for hit in hits], ensure_ascii=False))
    else:
        render.console().print(render.hits(hits, chosen.name))


def _page_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    try:
        return int(first or 1), int(last) if last else (2**31 if dash else int(first))
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is no range of pages; write 12, 12-20 or 12-") from error


@evaluate.command("variants")
def evaluate_variants(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_FOLDER", help="Keyed questions: a file, a folder of files, or MMLU's with test and dev."
        ),
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model folder or a Hub name; default: the embedded model.")
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
            _complain(f"note: {report.PLOTS_MISSING}")
    items = read_items(questions, shots=shots, subjects=subject or (), limit=limit)
    _tell_unused(items)
    for name in course or []:  # before anything slow begins
        _choose_course(name)
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
        _complain(f"written: {', '.join(map(str, written))}")
    if found.failed:
        raise UserError(f"{len(found.failed)} of {len(chosen)} variants could not be evaluated: {'; '.join(found.failed)}")
    if items.bad:
        raise UserError(f"{len(items.bad)} rows of {questions} hold no question; correct the lines named above")


def _tell_unused(items: "ItemSet") -> None:
    for line in items.bad[:_SHOWN_BAD]:
        _complain(line)
    if len(items.bad) > _SHOWN_BAD:
        _complain(f"... and {len(items.bad) - _SHOWN_BAD} more rows that hold no question")
    if items.without_key:
        _complain(f"note: questions without a key, left out: {items.without_key}")


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
        _complain(f"{name}: {reason}")
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
    chosen = _choose_course(course)
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


@app.command()
def courses(
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Delete this course's index, not its PDFs.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every index against itself.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the indexed courses."""
    from dataclasses import asdict

    from assistant import render
    from ingest.course import Course, course_names

    out = render.console()
    if remove is not None:
        course = Course.open(remove, check=False)
        folder = course.folder
        course.remove()
        out.print(render.plain(f"Removed the index of course {remove}; its PDFs stay in {folder}"), soft_wrap=True)
        return
    found = [Course.open(name, check=False) for name in course_names()]
    if verify:
        problems = {course.name: course.verify() for course in found}
        for name, lines in problems.items():
            for line in lines or ["all is well"]:
                out.print(render.plain(f"{name}: {line}"))
        if any(problems.values()):
            raise CourseError("some courses are damaged; rebuild them: mcqa index FOLDER --course NAME --rebuild")
        return
    rows = [(course.name, str(course.folder), course.documents()) for course in found]
    if as_json:
        records = [
            {"course": name, "folder": folder, "documents": [asdict(document) for document in documents]}
            for name, folder, documents in rows
        ]
        print(json.dumps(records, ensure_ascii=False))
    elif rows:
        out.print(render.courses(rows))
    else:
        out.print("No course is indexed yet; index one: mcqa index FOLDER --course NAME")


@app.command()
def ask(
    question: Annotated[
        str | None,
        typer.Argument(
            help="The question with its options, as in 'What is 2 + 2? A. 3 B. 4'; '-' reads it from standard input."
        ),
    ] = None,
    course: CourseOption = None,
    no_course: NoCourseOption = False,
    model: ModelOption = None,
    scoring: ScoringOption = None,
    passages: PassagesOption = None,
    permute: PermuteOption = 1,
    quantize: QuantizeOption = Quantize.none,
    dtype: DtypeOption = Dtype.auto,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how much each passage moved the answer, and by which sentence.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer one question, or several in a row when none is given."""
    from assistant.mcq import parse_question

    if question is None and sys.stdin.isatty():
        _converse(_assistant(course, no_course, model, scoring, passages, quantize, dtype, permute), as_json, explain)
        return
    # The question is checked before anything slow is loaded.
    mcq = parse_question(sys.stdin.read() if question in (None, "-") else str(question))
    _show(_assistant(course, no_course, model, scoring, passages, quantize, dtype, permute), mcq, as_json, explain)


def _converse(assistant: "Assistant", as_json: bool, explain: bool) -> None:
    from assistant.mcq import parse_question

    print("Paste a question with its options, then an empty line; Ctrl+D ends.", file=sys.stderr)
    lines: list[str] = []
    while True:
        try:
            line = input("> " if not lines else "  ")
        except EOFError:
            line = ""
            ended = True
        else:
            ended = False
        if line.strip():
            lines.append(line)
            continue
        if lines:
            try:
                _show(assistant, parse_question("\n".join(lines)), as_json, explain)
            except UserError as error:
                _complain(f"error: {error}")
            lines = []
        if ended:
            return


def _show(assistant: "Assistant", mcq: "MCQ", as_json: bool, explain: bool = False) -> None:
    from assistant import render

    result = assistant.answer(mcq)
    influences = assistant.explain(result) if explain else []
    if as_json:
        record = result.to_json()
        for source, influence in zip(record["sources"], influences, strict=False):
            moved = {"drop": influence.drop, "sentence": influence.sentence, "sentence_drop": influence.sentence_drop}
            source["influence"] = moved
        print(json.dumps(record, ensure_ascii=False))
    else:
        render.console().print(render.answer(result, assistant.course.name if assistant.course else None, influences))


_SHOWN = 5  # bad rows that are named on the terminal; the output names all
_BAD_ROWS = 3  # exit status
_INTERRUPTED = 130  # exit status


@app.command()
def batch(
    file: Annotated[Path, typer.Argument(help="Questions: .jsonl, .json or .csv.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the answers go (.jsonl or .csv).")],
    course: CourseOption = None,
    no_course: NoCourseOption = False,
    model: ModelOption = None,
    scoring: ScoringOption = None,
    passages: PassagesOption = None,
    permute: PermuteOption = 1,
    quantize: QuantizeOption = Quantize.none,
    dtype: DtypeOption = Dtype.auto,
    layout: Annotated[
        Format | None, typer.Option("--format", help="How the questions are laid out; default: what each row looks like.")
    ] = None,
    priors: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="First learn from N of the questions which letters the model prefers, and allow for it."
        ),
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped, with the same settings.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over and overwrite the output.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a file of questions, in their order.

    Answers are kept as they come: --resume continues a run that was stopped. Rows that cannot be answered are named, the
    others are answered, and the exit status is 3.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.batch import check_output, run_batch, sample
    from assistant.formats import read_mcqs
    from assistant.stats import percent_with_interval, wilson

    if resume and force:
        raise typer.BadParameter("--resume and --force exclude each other")
    # What is wrong with the files is said before the model is loaded.
    next(iter(read_mcqs(file, layout)), None)
    check_output(file, output, resume=resume, force=force)
    assistant = _assistant(course, no_course, model, scoring, passages, quantize, dtype, permute)
    if priors and assistant.scoring != "letter":
        _complain("note: --priors changes nothing where the options are not listed; it takes --scoring letter")
    elif priors:
        print("learning which letters the model prefers ...", file=sys.stderr)
        assistant.learn_priors(sample(file, priors, layout))
    columns = (TextColumn("Answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with render.progress(*columns) as update:
            report = run_batch(
                assistant,
                file,
                output,
                format=layout,
                resume=resume,
                force=force,
                on_progress=lambda done, total: update(completed=done, total=total),
            )
    except KeyboardInterrupt:
        _complain("stopped; the answers so far are kept, go on with the same command and --resume")
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        low, high = wilson(report.correct, report.keyed)
        summary = {
            "rows": report.rows, "resumed": report.resumed, "bad": report.bad, "keyed": report.keyed,
            "correct": report.correct, "accuracy": report.correct / report.keyed if report.keyed else None,
            "interval": [low, high] if report.keyed else None, "output": str(output),
        }  # fmt: skip
        print(json.dumps(summary))
    else:
        out = render.console()
        taken = f" ({report.resumed} taken over from the run before)" if report.resumed else ""
        out.print(render.plain(f"{report.rows - len(report.bad)} of {report.rows} questions answered{taken}: {output}"))
        if report.keyed:
            out.print(f"Accuracy {percent_with_interval(report.correct, report.keyed)}")
    if report.bad:
        _name_bad_rows(file, output, report.bad, report.rows)
        raise typer.Exit(_BAD_ROWS)


def _name_bad_rows(file: Path, output: Path, bad: dict[int, str], rows: int) -> None:
    from assistant.formats import counts_entries

    place = "entry" if counts_entries(file) else "line"
    for number in sorted(bad)[:_SHOWN]:
        _complain(f"{file} {place} {number}: {bad[number]}")
    more = f"the first {_SHOWN} are named above, all" if len(bad) > _SHOWN else "they are named above and"
    remedy = f"{more} in {output} under 'error'; correct them, then start over with --force"
    _complain(f"error: {len(bad)} of {rows} rows of {file} could not be answered; {remedy}")


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the models that are here, with their cards."""
    from assistant import render
    from assistant.model import installed_models

    found = installed_models()
    if as_json:
        print(json.dumps([{"name": n, "folder": str(f), "here": f.is_dir(), "card": c.model_dump()} for n, f, c in found]))
    else:
        render.console().print(render.models(found))


@app.command()
def calibrate(
    file: Annotated[Path, typer.Argument(help="Questions with keys: .jsonl, .json or .csv.")],
    course: CourseOption = None,
    no_course: NoCourseOption = False,
    model: ModelOption = None,
    scoring: ScoringOption = None,
    passages: PassagesOption = None,
    quantize: QuantizeOption = Quantize.none,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Learn from questions with keys how sure the model may be, so that 70 % means 70 %.

    The temperature, the weights of the course's evidence and the letters' priors go into the model's card, which is used from
    then on; deleting the card's file undoes it. The figures shown are of questions held out in turn.
    """
    from dataclasses import asdict

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from assistant import render
    from assistant.calibrate import calibrate as learn
    from assistant.formats import read_mcqs
    from assistant.model import card_file
    from ingest.home import ensure_folder, write_atomically

    mcqs = [row.mcq for row in read_mcqs(file) if row.mcq is not None]
    assistant = _assistant(course, no_course, model, scoring, passages, quantize, dtype)
    columns = (TextColumn("Calibrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with render.progress(*columns) as update:
        found = learn(assistant, mcqs, on_progress=lambda done, total: update(completed=done, total=total))
    target = card_file(assistant.lm.name)
    ensure_folder(target.parent)
    write_atomically(target, found.card.model_dump_json(indent=2) + "\n")
    if as_json:
        print(json.dumps({**asdict(found), "card": found.card.model_dump(), "file": str(target)}))
    else:
        render.console().print(render.calibration(found, target))


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="The address to listen on; the default serves this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    model: ModelOption = None,
    quantize: QuantizeOption = Quantize.none,
    dtype: DtypeOption = Dtype.auto,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Open the page where students ask and staff add material."""
    from assistant.web import serve

    serve(host=host, port=port, model=model, quantize=quantize.value, dtype=dtype.value, open_browser=open_browser)


def _assistant(
    course: str | None,
    no_course: bool,
    model: str | None,
    scoring: Scoring | None,
    passages: int | None,
    quantize: Quantize = Quantize.none,
    dtype: Dtype = Dtype.auto,
    permute: int = 1,
) -> "Assistant":
    if course is not None and no_course:
        raise typer.BadParameter("--course and --no-course exclude each other")
    chosen = None if no_course else _choose_course(course)
    from assistant.answer import Assistant
    from assistant.model import load_model

    lm = load_model(
        model,
        quantize=quantize.value,
        dtype=dtype.value,
        on_status=lambda status: print(status + " ...", file=sys.stderr),
    )
    print(lm.summary, file=sys.stderr)
    named: ScoringKind | None = None if scoring is None else scoring.value
    if permute > 1 and (named or lm.card.scoring) != "letter":
        _complain("note: --permute changes nothing where the options are not listed; it takes --scoring letter")
    return Assistant(lm, chosen, scoring=named, passages=passages, permute=permute)


def _choose_course(name: str | None) -> "Course":
    from ingest.course import Course, course_names

    if name is not None:
        return Course.open(name)
    known = course_names()
    if not known:
        raise CourseError("no course is indexed yet; run: mcqa index FOLDER --course NAME, or ask with --no-course")
    if len(known) > 1:
        raise CourseError(f"choose a course with --course; there are {', '.join(known)}")
    return Course.open(known[0])
