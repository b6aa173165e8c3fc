"""A comparison of variants → a picture of how honest their probabilities are, and what abstaining would bring."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from assistant.evaluate import Report, Summary
from assistant.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colors, which the color-blind can tell apart, without the yellow that white paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX"
_LINES = ("-", "--", "-.", ":")
_REFERENCE: dict[str, Any] = {"color": "#999999", "linewidth": 1, "linestyle": (0, (1, 3)), "zorder": 0}
_FIRST = 10  # the first few answers are nearly all right or all wrong, which says nothing and hides the rest


def png(report: Report) -> bytes:
    """Draw how often answers of each confidence are right, and the accuracy if only the surest are given, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no window, no global state.
    rows = (len(report.summaries) + 1) // 2
    figure = Figure(figsize=(11, 5.2 + 0.24 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    reliability, coverage = figure.subplots(1, 2)
    _frame(reliability, "Reliability (dotted: honest; bars: 95 % intervals)", "probability of the chosen option", "accuracy")
    _frame(
        coverage, f"Accuracy over coverage (n = {report.n})", "share answered, the surest first", "accuracy of these answers"
    )
    reliability.plot([0, 1], [0, 1], **_REFERENCE)
    coverage.axhline(report.chance, **_REFERENCE)
    coverage.annotate("chance", (0.01, report.chance), va="bottom", color="#666666", fontsize=9)
    for index, summary in enumerate(report.summaries):
        style = {
            "color": COLORS[index % len(COLORS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": _LINES[index // len(COLORS) % len(_LINES)],
            "markersize": 5,
            "linewidth": 1.6,
        }
        # Intervals of several variants stand side by side.
        _draw_reliability(reliability, summary, 0.004 * (index - (len(report.summaries) - 1) / 2), style)
        _draw_coverage(coverage, summary, report.n, style)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _frame(panel: "Axes", title: str, across: str, up: str) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set(title=title, xlabel=across, ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panel.grid(color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.xaxis.set_major_formatter(PercentFormatter(1))
    panel.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_reliability(panel: "Axes", summary: Summary, shift: float, style: dict[str, Any]) -> None:
    rates = [one.right / one.n for one in summary.bins]
    ends = [wilson(one.right, one.n) for one in summary.bins]
    below = [max(0.0, rate - low) for rate, (low, _) in zip(rates, ends, strict=True)]
    above = [max(0.0, high - rate) for rate, (_, high) in zip(rates, ends, strict=True)]
    at = [one.confidence + shift for one in summary.bins]
    # A variant's name may begin with an underscore, with which matplotlib would leave it out of the legend.
    panel.errorbar(at, rates, yerr=[below, above], label=summary.name.lstrip("_"), elinewidth=0.8, capsize=2, **style)


def _draw_coverage(panel: "Axes", summary: Summary, n: int, style: dict[str, Any]) -> None:
    points = [point for point in summary.coverage if point[0] >= min(_FIRST, n)]
    shares, accuracies = [answered / n for answered, _ in points], [right / answered for answered, right in points]
    panel.plot(shares, accuracies, markevery=[len(points) - 1], **style)
