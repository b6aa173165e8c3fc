"""A comparison of variants → Markdown, JSON and a picture of calibration and coverage."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from assistant.evaluate import Report, Summary
from assistant.stats import at_coverage, wilson
from ingest.errors import UserError
from ingest.home import write_atomically

SHARES = (0.25, 0.5, 0.75)  # of the questions, the surest answers, in tables
PLOTS_MISSING = 'no picture is drawn without matplotlib; pip install "mcqa-assistant[plots]"'


def can_draw() -> bool:
    """Say whether matplotlib, an optional part, is installed."""
    return find_spec("matplotlib") is not None


def check_folder(folder: Path, *, force: bool) -> None:
    """Create the folder of a report; raises UserError where it cannot be, or holds a report and `force` is not set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder with -o") from error
    if (folder / "report.json").exists() and not force:
        raise UserError(f"{folder} already holds a report; choose another folder with -o, or overwrite it with --force")


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.md, report.json and, where matplotlib is there, reliability.png; each is replaced whole or not at all."""
    drawn = can_draw()
    contents: dict[str, str | bytes] = {"report.json": json.dumps(to_json(report), ensure_ascii=False) + "\n"}
    if drawn:
        from assistant.plot import png

        contents["reliability.png"] = png(report)
    contents["report.md"] = markdown(report, picture="reliability.png" if drawn else None)
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder with -o") from error
    return [folder / name for name in contents]


def to_json(report: Report) -> dict[str, Any]:
    """Return the report in types that JSON knows: shares from 0 to 1, seconds, bytes, and every single outcome."""
    return {
        "source": report.source,
        "shots": report.shots,
        "n": report.n,
        "chance": report.chance,
        "variants": [_summary_json(summary, report.n) for summary in report.summaries],
        "left_out": dict(report.left_out),
        "failed": dict(report.failed),
    }


def _summary_json(summary: Summary, n: int) -> dict[str, Any]:
    result, against = summary.result, summary.against_first
    return {
        "name": summary.name,
        **asdict(result.variant),
        "scoring": result.scoring,
        "passages": result.passages,
        "dtype": result.dtype,
        "device": result.device,
        "accuracy": _share(summary.correct, n),
        "against_first": against and {
            "gain": (against.gained - against.lost) / n, "interval": list(against.interval), "n": n,
            "gained": against.gained, "lost": against.lost, "mcnemar_p": against.p,
        },
        "subjects": {subject: _share(*counts) for subject, counts in summary.subjects.items()},
        "recalls": {letter: _share(*counts) for letter, counts in summary.recalls.items()},
        "recall_spread": {"value": summary.recall_spread, "interval": list(summary.recall_spread_interval), "n": n},
        "confidence": summary.confidence,
        "calibration_error": {
            "value": summary.calibration_error, "interval": list(summary.calibration_error_interval), "n": n,
            "bins": [asdict(one) for one in summary.bins],
        },
        "coverage": [{"answered": answered, "right": right} for answered, right in summary.coverage],
        "negative_log_likelihood": summary.negative_log_likelihood,
        "brier": summary.brier,
        "seconds": {"mean": summary.seconds, "p95": summary.seconds_p95, "to_load": result.seconds_to_load},
        "tokens": summary.tokens,
        "bytes": {
            "weights": result.weight_bytes, "peak": result.peak_bytes, "resident": result.resident_bytes,
            "gpu": result.gpu_bytes,
        },
        "outcomes": [asdict(outcome) for outcome in result.outcomes],
    }  # fmt: skip


def _share(right: int, n: int) -> dict[str, Any]:
    return {"value": right / n, "interval": list(wilson(right, n)), "right": right, "n": n}


def percent(right: int, n: int) -> str:
    """Return a share with its 95 % interval for a table, as in "45.3 (40.2-50.4)"."""
    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def gain(summary: Summary, n: int) -> str:
    """Return the gain over the first variant in points with its 95 % interval, as in "+3.1 (-0.4 to +6.5)"."""
    against = summary.against_first
    if against is None:
        return "–"
    low, high = (100 * end for end in against.interval)
    return f"{100 * (against.gained - against.lost) / n:+.1f} ({low:+.1f} to {high:+.1f})"


def p_value(summary: Summary) -> str:
    """Return McNemar's p for a table."""
    against = summary.against_first
    if against is None:
        return "–"
    return "< 0.0001" if against.p < 1e-4 else f"{against.p:.4f}"


def spread(summary: Summary) -> str:
    """Return the spread of recalls in points with its 95 % interval."""
    low, high = summary.recall_spread_interval
    return f"{100 * summary.recall_spread:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def calibration(summary: Summary) -> str:
    """Return the expected calibration error with its 95 % interval."""
    low, high = summary.calibration_error_interval
    return f"{summary.calibration_error:.3f} ({low:.3f}-{high:.3f})"


def megabytes(count: int | None) -> str:
    """Return bytes as MB (10^6) for a table."""
    return "not known" if count is None else f"{count / 1e6:,.0f}"


def basis(report: Report) -> str:
    """Return in a sentence what the figures rest on."""
    subjects = len(report.summaries[0].subjects)
    words = [
        f"n = {report.n} questions",
        f"{subjects} subject{'s' if subjects > 1 else ''}",
        f"chance {100 * report.chance:.1f} %",
    ]
    if report.shots:
        words.insert(2, f"{report.shots} solved examples before each")
    return f"{report.source}: {', '.join(words)}"


def markdown(report: Report, picture: str | None = None) -> str:
    """Return the report as Markdown, with a line for what each column means; `picture` is the file name of the plot."""
    parts = ["# Evaluation", f"{basis(report)}. In brackets: 95 % intervals.", *_accuracy(report), *_probabilities(report)]
    if picture:
        parts.append(f"![Reliability, and accuracy over coverage]({picture})")
    parts += [*_letters(report), *_cost(report), *_subjects(report), *_variants(report)]
    for title, reasons in (("Could not be evaluated", report.failed), ("Questions left out", report.left_out)):
        if reasons:
            parts += [f"## {title}", "\n".join(f"- {cell(name)}: {cell(reason)}" for name, reason in reasons.items())]
    return "\n\n".join(parts) + "\n"


def _accuracy(report: Report) -> list[str]:
    rows = []
    for summary in report.summaries:
        against = summary.against_first
        counts = ("–", "–") if against is None else (against.gained, against.lost)
        accuracy = percent(summary.correct, report.n)
        rows.append((summary.name, accuracy, gain(summary, report.n), *counts, p_value(summary)))
    return [
        "## Accuracy",
        table(("variant", "accuracy, %", "gain, points", "it alone", "first alone", "p"), rows),
        legend(
            ("accuracy", f"share of the {report.n} questions whose likeliest option is the key, with Wilson's interval"),
            ("gain", "accuracy above that of the first variant, with Agresti and Min's interval for paired answers"),
            ("it alone, first alone", "questions that only this and only the first variant answered rightly"),
            ("p", "McNemar's exact test of these two counts, two-sided, not corrected for several comparisons"),
        ),
    ]


def _probabilities(report: Report) -> list[str]:
    head = ("variant", "confidence, %", "calibration error", "log loss", "Brier")
    rows = [
        (
            summary.name,
            f"{100 * summary.confidence:.1f}",
            calibration(summary),
            f"{summary.negative_log_likelihood:.3f}",
            f"{summary.brier:.3f}",
            *(percent_of_surest(summary, share) for share in SHARES),
        )
        for summary in report.summaries
    ]
    return [
        "## Honesty of the probabilities",
        table((*head, *(f"surest {share:.0%}" for share in SHARES)), rows),
        legend(
            ("confidence", "mean probability of the chosen option; where probabilities are honest it equals the accuracy"),
            ("calibration error", "mean gap between confidence and accuracy over 10 equally wide bins; interval by bootstrap"),
            ("log loss", "mean of -ln p, p the probability of the key; lower is better"),
            ("Brier", "mean squared distance of the probabilities from the key, 0 to 2; lower is better"),
            (
                "surest",
                "accuracy in % if only this share of the questions is answered, the surest (equally sure ones together)",
            ),
        ),
    ]


def _letters(report: Report) -> list[str]:
    recalls = report.summaries[0].recalls  # all variants were asked the same keys
    rows = [
        (summary.name, *(percent(*summary.recalls[letter]) for letter in recalls), spread(summary))
        for summary in report.summaries
    ]
    return [
        "## Recall per letter",
        table(("variant", *(f"{letter} (n = {n})" for letter, (_, n) in recalls.items()), "spread, points"), rows),
        legend(
            ("a letter", "share in % of the questions with this key that are answered with it"),
            (
                "spread",
                "standard deviation of these recalls (arXiv 2309.03882), 0 where no position is favored",
            ),
        ),
    ]


def _cost(report: Report) -> list[str]:
    gpu = any(summary.result.gpu_bytes is not None for summary in report.summaries)
    head = ("variant", "s a question", "p95, s", "tokens", "s to load", "weights, MB", "peak, MB", "at the end, MB")
    rows = []
    for summary in report.summaries:
        result = summary.result
        times = f"{summary.seconds:.3f}", f"{summary.seconds_p95:.3f}", f"{summary.tokens:.0f}", f"{result.seconds_to_load:.1f}"
        memory = [result.weight_bytes, result.peak_bytes, result.resident_bytes, *([result.gpu_bytes] if gpu else [])]
        rows.append((summary.name, *times, *map(megabytes, memory)))
    return [
        "## Cost",
        table((*head, *(["GPU, MB"] if gpu else [])), rows),
        legend(
            (
                "s a question, p95",
                "mean and 95th percentile of search, prompt and model together; one question before warms up",
            ),
            ("tokens", "mean length of a prompt with all its options, what these share counted once"),
            ("s to load", "libraries, model and, where there is a course, its index and embedder"),
            ("weights", "what the model's weights take in memory"),
            (
                "peak, at the end",
                "resident memory of the variant's own process, highest (loading, too) and after the last answer",
            ),
            *([("GPU", "memory of the GPU at its highest")] if gpu else []),
        ),
    ]


def _subjects(report: Report) -> list[str]:
    rows = [
        (subject, n, *(percent(*summary.subjects[subject]) for summary in report.summaries))
        for subject, (_, n) in sorted(report.summaries[0].subjects.items())
    ]
    return [
        "## Subjects",
        table(("subject", "n", *(summary.name for summary in report.summaries)), rows),
        legend(("a variant", "its accuracy in % on the n questions of the subject")),
    ]


def _variants(report: Report) -> list[str]:
    results = [(summary.name, summary.result) for summary in report.summaries]
    return [
        "## Variants",
        table(
            ("variant", "scoring", "passages", "number format", "device"),
            [(name, result.scoring, result.passages, result.dtype, result.device) for name, result in results],
        ),
        legend(
            ("scoring", "by the options' letters or by their texts (cloze)"),
            ("passages", "how many the prompt shows at most"),
            ("number format", "what the model computes in"),
        ),
    ]


def percent_of_surest(summary: Summary, share: float) -> str:
    """Return the accuracy among the surest `share` of the answers, with its 95 % interval."""
    answered, right = at_coverage(summary.coverage, share)
    return percent(right, answered)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(content) for content in line)} |" for line in lines)


def cell(content: object) -> str:
    """Return a text that cannot end its cell or line, nor be taken for markup."""
    text = " ".join(str(content).split())
    for mark in "\\|<[`*":
        text = text.replace(mark, "\\" + mark)
    return text


def legend(*meanings: tuple[str, str]) -> str:
    """Return a list in Markdown of (name, what it means)."""
    return "\n".join(f"- *{name}*: {meaning}." for name, meaning in meanings)
