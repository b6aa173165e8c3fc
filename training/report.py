"""What an evaluation measured → tables, Markdown, JSON and a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assistant import evaluate as asking
from assistant import report as assistants
from assistant.report import can_draw, percent
from assistant.stats import wilson
from ingest.errors import UserError
from ingest.home import write_atomically
from training.bootstrap import Estimate
from training.evaluate import PreferenceReport, Preferences, Ranked, Report, ResponseReport
from training.tables import Table, gain, markdown, p_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "evaluation.png"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.md, report.json and, where matplotlib is there, evaluation.png; each is replaced whole or not at all."""
    contents: dict[str, str | bytes] = {"report.json": json.dumps(to_json(report), ensure_ascii=False) + "\n"}
    if can_draw():
        contents[PICTURE] = png(report)
    contents["report.md"] = to_markdown(report, PICTURE if can_draw() else None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder with -o") from error
    return [folder / name for name in contents]


def tables(report: Report) -> list[Table]:
    """Return the report's figures as tables, one for each kind of them."""
    found = [_questions(report, one) for one in report.questions]
    if report.preferences is not None:
        found += [*_rankings(report, report.preferences), *_rewards(report, report.preferences)]
    return found + [_responses(report, one) for one in report.responses]


def to_markdown(report: Report, picture: str | None = None) -> str:
    """Return the report as Markdown, with a line for what each column means; `picture` is the file name of the plot."""
    parts = ["# Evaluation", "The first model is what the others are compared with. In brackets: 95 % intervals."]
    parts.append("\n".join(f"- {assistants.cell(line)}" for line in models(report)))
    parts += map(markdown, tables(report))
    if picture:
        parts.append(f"![The figures with their intervals]({picture})")
    left = left_out(report)
    if left:
        parts += ["## Left out", "\n".join(f"- {assistants.cell(line)}" for line in left)]
    return "\n\n".join(parts) + "\n"


def models(report: Report) -> list[str]:
    """Return a line for each variant: its name, and what was loaded."""
    return [f"{name}: {summary}" for name, summary in zip(_names(report), report.summaries, strict=True)]


def left_out(report: Report) -> list[str]:
    """Return what was not measured, and why."""
    lines = list(report.notes)
    for one in report.questions:
        lines += [f"{one.source}: {name}: {reason}" for name, reason in one.left_out.items()]
    long = f"whose prompt alone fills {report.max_length} tokens or a model's window"
    if report.preferences is not None and report.preferences.left_out:
        lines.append(f"{report.preferences.left_out} pairs {long}")
    lines += [f"{one.left_out} answers of {one.source} {long}" for one in report.responses if one.left_out]
    return lines


def _questions(report: Report, found: asking.Report) -> Table:
    rows = [
        (
            name,
            percent(summary.correct, found.n),
            gain(summary.against_first, found.n),
            p_value(summary.against_first),
            f"{summary.negative_log_likelihood:.3f}",
            assistants.calibration(summary),
        )
        for name, summary in zip(_names(report), found.summaries, strict=True)
    ]
    return Table(
        f"Questions: {assistants.basis(found)}",
        ("model", "accuracy, %", "gain, points", "p", "log loss", "calibration error"),
        rows,
        (
            ("accuracy", "with Wilson's interval"),
            ("gain", "above the first model's, with Agresti and Min's interval for paired answers"),
            ("p", "McNemar's exact test, two-sided"),
            ("log loss", "mean of -ln p, p the probability of the key"),
        ),
    )


def _rankings(report: Report, found: PreferenceReport) -> list[Table]:
    models = list(zip(_names(report), found.models, strict=True))
    basis = f"{found.n} pairs, {found.prompts} prompts"
    return [
        Table(
            f"Chosen against rejected answers by likelihood: {basis}",
            ("model", "chosen likelier, %", "gain, points", "p", "per token, %", "gain, points", "p"),
            [
                (name, _ranked(one.likelihood), *_against(one.likelihood), _ranked(one.per_token), *_against(one.per_token))
                for name, one in models
            ],
            (("chosen likelier, per token", "pairs whose chosen answer has the higher log-likelihood, whole or per token"),),
        ),
        Table(
            f"Log-likelihoods in nats: {basis}",
            ("model", "chosen", "rejected", "margin"),
            [(name, estimate(one.chosen, 1), estimate(one.rejected, 1), estimate(one.margin, 1)) for name, one in models],
            (("chosen, rejected, margin", "means and their difference; bootstrap over prompts"),),
        ),
    ]


def _rewards(report: Report, found: PreferenceReport) -> list[Table]:
    rows = []
    for name, one in zip(_names(report), found.models, strict=True):
        if one.rewards is not None:
            accuracy = one.rewards.accuracy
            means = (estimate(value) for value in (one.rewards.margin, one.rewards.chosen, one.rewards.rejected))
            rows.append((name, _ranked(accuracy), *_against(accuracy), *means))
    if not rows:
        return []
    title = f"Implicit rewards over {report.variants[0].name}: {found.n} pairs, {found.prompts} prompts, beta {found.beta:g}"
    return [
        Table(
            title,
            ("model", "reward accuracy, %", "over the first's likelihood", "p", "margin", "chosen", "rejected"),
            rows,
            (
                ("reward accuracy", "pairs whose chosen answer has the higher reward, beta · (log p - log p of the first)"),
                (
                    "over the first's likelihood",
                    "points above the share that the first model itself finds likelier; p: McNemar",
                ),
                ("margin, chosen, rejected", "mean rewards and their difference; bootstrap over prompts"),
            ),
        )
    ]


def _responses(report: Report, found: ResponseReport) -> Table:
    rows = [
        (
            name,
            estimate(one.cross_entropy),
            "–" if one.difference is None else estimate(one.difference, sign=True),
            estimate(one.perplexity, 2),
            one.tokens,
        )
        for name, one in zip(_names(report), found.models, strict=True)
    ]
    return Table(
        f"Responses: {found.source}, {found.n} answers, {found.prompts} prompts, format {report.form}",
        ("model", "cross-entropy, nats/token", "difference", "perplexity", "tokens"),
        rows,
        (
            ("cross-entropy", "of the answers' tokens, the end included, after their prompts; bootstrap over prompts"),
            ("difference", "from the first model, on the same answers"),
        ),
    )


def estimate(found: Estimate, digits: int = 3, *, sign: bool = False) -> str:
    """Return a figure with its interval, as in "1.234 (1.200 to 1.268)"."""
    form = f"{'+' if sign else ''}.{digits}f"
    if not (isfinite(found.low) and isfinite(found.high)):
        return f"{found.value:{form}} (not known)"
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _ranked(found: Ranked) -> str:
    return percent(found.right, found.n)


def _against(found: Ranked) -> tuple[str, str]:
    return gain(found.against, found.n), p_value(found.against)


def _names(report: Report) -> list[str]:
    return [variant.name for variant in report.variants]


def to_json(report: Report) -> dict[str, Any]:
    """Return the report in types that JSON knows; shares from 0 to 1, intervals that are not known as null."""
    return {
        "variants": [
            asdict(variant) | {"summary": summary} for variant, summary in zip(report.variants, report.summaries, strict=True)
        ],
        "format": report.form,
        "max_length": report.max_length,
        "questions": [assistants.to_json(one) for one in report.questions],
        "preferences": None if report.preferences is None else _preferences_json(report, report.preferences),
        "responses": [
            {
                **{key: getattr(one, key) for key in ("source", "n", "prompts", "left_out")},
                "models": [
                    {
                        "name": name,
                        "cross_entropy": _estimate_json(model.cross_entropy),
                        "perplexity": _estimate_json(model.perplexity),
                        "difference": _estimate_json(model.difference),
                        "tokens": model.tokens,
                    }
                    for name, model in zip(_names(report), one.models, strict=True)
                ],
            }
            for one in report.responses
        ],
        "notes": list(report.notes),
    }


def _preferences_json(report: Report, found: PreferenceReport) -> dict[str, Any]:
    def model(name: str, one: Preferences) -> dict[str, Any]:
        rewards = one.rewards
        return {
            "name": name,
            "likelihood": _ranked_json(one.likelihood),
            "per_token": _ranked_json(one.per_token),
            **{key: _estimate_json(getattr(one, key)) for key in ("chosen", "rejected", "margin")},
            "rewards": rewards and {
                "accuracy": _ranked_json(rewards.accuracy),
                **{key: _estimate_json(getattr(rewards, key)) for key in ("margin", "chosen", "rejected")},
            },
        }  # fmt: skip

    return {
        **{key: getattr(found, key) for key in ("n", "prompts", "beta", "left_out")},
        "models": [model(name, one) for name, one in zip(_names(report), found.models, strict=True)],
    }


def _ranked_json(found: Ranked) -> dict[str, Any]:
    against = found.against
    return {
        "value": found.right / found.n, "interval": list(wilson(found.right, found.n)), "right": found.right, "n": found.n,
        "against": against and {
            "gain": (against.gained - against.lost) / found.n, "interval": list(against.interval), "gained": against.gained,
            "lost": against.lost, "mcnemar_p": against.p,
        },
    }  # fmt: skip


def _estimate_json(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    known = isfinite(found.low) and isfinite(found.high)
    return {"value": found.value, "interval": [found.low, found.high] if known else None}


def png(report: Report) -> bytes:
    """Draw what was measured with its intervals, a panel for each kind of figure, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(report)
    figure = Figure(figsize=(3.6 * len(panels) + 1.5, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, unit, groups) in zip(axes, panels, strict=True):
        _draw(panel, title, unit, groups, _names(report))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


_Group = tuple[str, Sequence[Estimate | None]]  # what is measured, and a figure for each variant that has one


def _panels(report: Report) -> list[tuple[str, str, list[_Group]]]:
    """Return for each panel its title, the unit, and its groups of figures."""
    found: list[tuple[str, str, list[_Group]]] = []
    if report.questions:
        asked: list[_Group] = [
            (one.source, [_share(summary.correct, one.n) for summary in one.summaries]) for one in report.questions
        ]
        found.append(("Accuracy", "%", asked))
    if report.preferences is not None:
        models = report.preferences.models
        ranked: list[_Group] = [
            ("likelihood", [_share(one.likelihood.right, one.likelihood.n) for one in models]),
            ("per token", [_share(one.per_token.right, one.per_token.n) for one in models]),
        ]
        rewarded = [_share(one.rewards.accuracy.right, one.rewards.accuracy.n) if one.rewards else None for one in models]
        if any(rewarded):
            ranked.append(("reward", rewarded))
        found.append((f"Chosen above rejected (n = {report.preferences.n})", "%", ranked))
    if report.responses:
        read: list[_Group] = [(one.source, [model.cross_entropy for model in one.models]) for one in report.responses]
        found.append(("Cross-entropy of responses", "nats a token", read))
    return found


def _share(right: int, n: int) -> Estimate:
    low, high = wilson(right, n)
    return Estimate(100 * right / n, 100 * low, 100 * high)


def _draw(panel: "Axes", title: str, unit: str, groups: Sequence[_Group], names: Sequence[str]) -> None:
    from assistant.plot import COLORS, MARKERS

    panel.set(title=title, ylabel=unit, xticks=range(len(groups)), xlim=(-0.5, len(groups) - 0.5))
    panel.set_xticklabels([name if len(name) < 18 else f"{name[:16]}…" for name, _ in groups])
    panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    for number, name in enumerate(names):
        shift = 0.5 * ((number + 0.5) / len(names) - 0.5)
        points = [(place + shift, found[number]) for place, (_, found) in enumerate(groups)]
        known = [(at, one) for at, one in points if one is not None]
        ends = [
            # Rounding may put an end on the wrong side of a value that it is equal to.
            [max(0.0, one.value - one.low) if isfinite(one.low) else 0.0 for _, one in known],
            [max(0.0, one.high - one.value) if isfinite(one.high) else 0.0 for _, one in known],
        ]
        panel.errorbar(
            [at for at, _ in known], [one.value for _, one in known], yerr=ends, linestyle="", capsize=3, markersize=6,
            color=COLORS[number % len(COLORS)], marker=MARKERS[number % len(MARKERS)], label=name.lstrip("_"),
        )  # fmt: skip
