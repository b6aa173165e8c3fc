"""`mcqa`: index course material, answer questions about it, one by one, as a batch, or on a page."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assistant.cli_evaluate import evaluate
from assistant.cli_options import (
    CourseOption,
    Dtype,
    DtypeOption,
    JsonOption,
    Method,
    ModelOption,
    NoCourseOption,
    PassagesOption,
    PermuteOption,
    Quantize,
    QuantizeOption,
    Scoring,
    ScoringOption,
    choose_course,
    complain,
)
from assistant.cli_page import ui, users
from assistant.formats import Format
from ingest.errors import CourseError, UserError

# Each command imports what it needs: `mcqa --help` must not load a deep-learning library.
if TYPE_CHECKING:
    from assistant.answer import Assistant
    from assistant.card import ScoringKind
    from assistant.mcq import MCQ
    from ingest.chunk import SplitSettings

app = typer.Typer(
    name="mcqa",
    help="Answer multiple-choice questions about a course, with a probability for each option and the page it rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(evaluate, name="evaluate")
app.add_typer(users, name="users")
app.command()(ui)


def main() -> None:
    """Run the command line; an error that the user can act on becomes one line and exit status 1."""
    run(app)


def run(application: typer.Typer) -> None:
    """Run `application` with the one error boundary that the project's commands share."""
    try:
        application()
    except UserError as error:
        complain(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


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

    chosen = choose_course(course)
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
                complain(f"error: {error}")
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
        complain("note: --priors changes nothing where the options are not listed; it takes --scoring letter")
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
        complain("stopped; the answers so far are kept, go on with the same command and --resume")
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
        complain(f"{file} {place} {number}: {bad[number]}")
    more = f"the first {_SHOWN} are named above, all" if len(bad) > _SHOWN else "they are named above and"
    remedy = f"{more} in {output} under 'error'; correct them, then start over with --force"
    complain(f"error: {len(bad)} of {rows} rows of {file} could not be answered; {remedy}")


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the models that are here, with their cards."""
    from assistant import render
    from assistant.locate import installed_models

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
    from assistant.locate import card_file
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
    chosen = None if no_course else choose_course(course)
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
        complain("note: --permute changes nothing where the options are not listed; it takes --scoring letter")
    return Assistant(lm, chosen, scoring=named, passages=passages, permute=permute)
