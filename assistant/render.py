"""Answers, reports and tables → what the terminal shows. Texts from files are printed as text, never as markup."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

from assistant import report as figures
from assistant.answer import Answer, Influence
from assistant.calibrate import Calibration
from assistant.card import Card, Template
from assistant.evaluate import Report
from assistant.retrieval import DEPTHS, RetrievalScore
from assistant.stats import percent_with_interval, wilson
from ingest.clean import without_control_characters
from ingest.course import Hit
from ingest.search import RELEVANT
from ingest.store import DocumentRecord
from ingest.sync import SyncPlan, SyncReport

_BAR = 30


def plain(text: str, style: str = "") -> Text:
    """Return `text` without terminal control characters, to be shown as it stands."""
    return Text(without_control_characters(text), style=style)


def answer(result: Answer, course: str | None, influences: Sequence[Influence] = ()) -> RenderableType:
    """Show the question, a bar for each option, the letter and the passages it rests on, with what each did where known."""
    chosen = result.mcq.letters.index(result.letter)
    bars = Table.grid(padding=(0, 1))
    bars.add_column(width=1)
    bars.add_column(width=1)
    bars.add_column(justify="right", width=6, no_wrap=True)
    bars.add_column(width=_BAR, no_wrap=True)
    bars.add_column()
    for index, (letter, option) in enumerate(zip(result.mcq.letters, result.mcq.options, strict=True)):
        probability = result.probabilities[index]
        style = "bold green" if index == chosen else ""
        bars.add_row(
            Text("›" if index == chosen else " ", style),
            Text(letter, style),
            Text(f"{100 * probability:.1f} %", style),
            Text("█" * round(_BAR * probability), style or "cyan"),
            plain(option, style),
        )
    parts: list[RenderableType] = [plain(result.mcq.question, "bold"), "", bars, ""]
    verdict = Text.assemble(
        "Answer: ",
        (result.letter, "bold green"),
        f"  ({100 * result.probabilities[chosen]:.0f} % sure; {result.model}, {result.scoring}, {result.seconds:.1f} s)",
    )
    if result.mcq.answer:
        verdict.append(f"  key: {result.mcq.answer}", "green" if result.mcq.answer == result.letter else "red")
    parts.append(verdict)
    parts += [plain(f"Note: {warning}", "yellow") for warning in result.warnings]
    if result.sources:
        parts += ["", plain(f"From the course {course}:", "bold")]
        for number, (hit, influence) in enumerate(zip_longest(result.sources, influences), start=1):
            parts.append(_source(number, hit, influence))
    else:
        parts.append(plain("Answered without course material.", "yellow"))
    return Group(*parts)


def _source(number: int, hit: Hit, influence: Influence | None = None) -> RenderableType:
    place = Text.assemble(f"[{number}] ", (without_control_characters(hit.passage.place), "bold cyan"))
    if hit.passage.heading:
        place.append(without_control_characters(f"  {hit.passage.heading}"), "cyan")
    text = plain(hit.passage.text)
    if influence is not None:
        place.append(f"  {100 * influence.drop:+.1f} points", "green" if influence.drop > 0 else "yellow")
        if influence.sentence:
            text.highlight_words([without_control_characters(influence.sentence)], "bold")
    return Group(place, Padding(text, (0, 0, 1, 4), expand=False))


def models(found: Sequence[tuple[str, Path, Card]]) -> RenderableType:
    """Show the models that are here: how each is asked, and what was measured."""
    parts: list[RenderableType] = []
    for name, folder, card in found:
        title = Text(name, "bold")
        title.append("" if folder.is_dir() else "  made at its first use", "yellow")
        turns = card.template.turns_negation
        prompt = "standard" if card.template == Template(turns_negation=turns) else _one_line(card.template)
        rows = {
            "scoring": card.scoring if card.scoring == "letter" else f"{card.scoring}, {card.normalization}",
            "passages": str(card.passages),
            "temperature": f"{card.temperature:.3g}",
            "evidence": _weights(card) or "none",
            "prompt": prompt + (", what is not so put plainly" if turns else ""),
            "measured": "\n".join(f"{percent_with_interval(m.right, m.n)}: {m.on}" for m in card.accuracy) or "nothing yet",
        }
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        for row in rows.items():
            table.add_row(*map(plain, row))
        parts += [title, Padding(table, (0, 0, 1, 2))]
    return Group(*parts)


def _weights(card: Card) -> str:
    """Return what each kind of evidence weighs; empty where none counts."""
    return ", ".join(f"{kind} {weight:.3g}" for kind, weight in card.evidence_weights.items())


def _one_line(template: Template) -> str:
    """Return a template's pieces in their order, line breaks as signs."""
    options = template.option if template.lists_options else ""
    return f"{template.start}{template.passage}{template.question}{options}{template.answer}".replace("\n", "⏎")


def calibration(found: Calibration, target: Path) -> RenderableType:
    """Show what calibrating changed, on questions held out in turn."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("accuracy", *(percent_with_interval(right, found.n) for right in found.right))
    table.add_row("log loss, nats", *(f"{value:.3f}" for value in found.log_loss))
    table.add_row("calibration error", *(f"{value:.3f}" for value in found.error))
    evidence = _weights(found.card) or "does not help, weighs nothing"
    lines = plain(f"temperature {found.card.temperature:.3g}; evidence of the course: {evidence}\nwritten: {target}")
    return Group(table, "", lines)


def sync(name: str, report: SyncReport) -> RenderableType:
    """Show what a sync did, the files that could not be read by name."""
    summary = plain(f"Course {name}: {report.counts or 'nothing new'}")
    if report.passages:
        kept = report.passages - report.embedded
        known = f" ({kept} of them as before)" if kept and report.changed else ""
        summary.append(f"; {report.pages} pages, {report.passages} passages{known} in {report.seconds:.1f} s")
    lines: list[RenderableType] = [summary]
    lines += [plain(f"  not indexed: {path}: {reason}", "yellow") for path, reason in report.failed.items()]
    return Group(*lines)


def plan(name: str, planned: SyncPlan) -> RenderableType:
    """Show what a sync would do, every document that it would touch by name."""
    lines = [plain(f"Course {name} would see: {planned.counts or 'nothing'}", "bold")]
    for mark, what, names in (
        ("+", "new", planned.added),
        ("~", "changed", planned.changed),
        ("-", "removed", planned.removed),
    ):
        lines += [plain(f"  {mark} {path} ({what})", "red" if mark == "-" else "") for path in names]
    lines += [plain(f"  > {old} → {path} (renamed)") for path, old in planned.renamed.items()]
    lines += [plain(f"  = {path} (the same as {other})") for path, other in planned.duplicates.items()]
    lines += [plain(f"  ! {path} (not indexed: {reason})", "yellow") for path, reason in planned.failed.items()]
    return Group(*lines)


def hits(found: Sequence[Hit], course: str) -> RenderableType:
    """Show the passages that a search found, with their relevance."""
    if not found:
        return plain(f"Nothing found in course {course}.", "yellow")
    parts: list[RenderableType] = []
    if max(hit.relevance for hit in found) < RELEVANT:
        parts += [plain(f"Course {course} probably holds nothing about this; the nearest passages:", "yellow"), ""]
    for number, hit in enumerate(found, start=1):
        parts += [plain(f"relevance {hit.relevance:.2f}", "dim"), _source(number, hit)]
    return Group(*parts)


def retrieval(scores: Sequence[RetrievalScore]) -> RenderableType:
    """Show how often each way of searching found the place, as a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("Method", "Query", *(f"recall@{depth}" for depth in DEPTHS), "MRR"):
        table.add_column(heading, justify="left" if heading in ("Method", "Query") else "right")
    for score in scores:
        cells = []
        for depth in DEPTHS:
            low, high = wilson(score.found[depth], score.n)
            cells.append(f"{100 * score.found[depth] / score.n:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        table.add_row(score.method, score.query, *cells, f"{score.mrr:.3f}")
    first = scores[0]
    return Group(table, plain(f"by {first.by}, n = {first.n}; recall in % with its 95 % interval"))


def evaluation(report: Report) -> RenderableType:
    """Show how the variants compare, as a table, and by name what was left out."""
    # Names stand above, where they have room; so the table fits 80 columns.
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("")
    table.add_column("Accuracy, %", justify="right", min_width=len("39.0 (34.3-43.9)"), no_wrap=True)
    table.add_column("Gain, points", justify="right", min_width=len("(+10.0 to +23.8)"))
    for heading in ("p", "ECE", "Spread", "s", "Tokens", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = []
    for number, summary in enumerate(report.summaries, start=1):
        names.append(f"{number}  {summary.name}")
        table.add_row(
            str(number),
            figures.percent(summary.correct, report.n),
            figures.gain(summary, report.n),
            figures.p_value(summary),
            f"{summary.calibration_error:.3f}",
            f"{100 * summary.recall_spread:.1f}",
            f"{summary.seconds:.3f}",
            f"{summary.tokens:.0f}",
            figures.megabytes(summary.result.peak_bytes),
        )
    legend = (
        "In brackets 95 % intervals. Gain and p (McNemar's exact test): against the first variant. ECE: expected calibration "
        "error. Spread: standard deviation of the recall per letter, points. s, tokens: per question. MB: resident at most."
    )
    left = [f"left out: {name}: {reason}" for name, reason in report.left_out.items()]
    top = [plain(line) for line in (figures.basis(report), *names, "")]
    return Group(*top, table, "", plain(legend, "dim"), *(plain(line, "yellow") for line in left))


def courses(rows: Sequence[tuple[str, str, Sequence[DocumentRecord]]]) -> RenderableType:
    """Show (name, folder, documents) of each course as a table, the files that could not be read below it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("Course", "Documents", "Pages", "Passages", "Folder"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("Course", "Folder") else "right")
    failed = []
    for name, folder, documents in rows:
        indexed = [document for document in documents if document.status == "indexed"]
        pages, passages = sum(d.pages for d in indexed), sum(d.passages for d in indexed)
        table.add_row(plain(name), str(len(indexed)), str(pages), str(passages), plain(folder))
        failed += [f"{name}: not indexed: {d.path}: {d.detail}" for d in documents if d.status != "indexed"]
        failed += [f"{name}: {d.path}: {d.detail}" for d in indexed if d.detail]
    return Group(table, *(plain(line, "yellow") for line in failed))


@contextmanager
def progress(*columns: ProgressColumn, **fields: Any) -> Iterator[Callable[..., None]]:
    """Yield a function that updates a progress bar on standard error; the bar appears with its first call."""
    bar = Progress(*columns, console=console(stderr=True))
    task = bar.add_task("", total=None, **fields)

    def update(**values: Any) -> None:
        bar.start()
        bar.update(task, **values)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


def console(*, stderr: bool = False) -> Console:
    """Return a console that adds no color of its own to numbers and paths."""
    return Console(stderr=stderr, highlight=False, markup=False)
