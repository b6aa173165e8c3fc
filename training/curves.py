"""A trainer's log → a picture of how training went: losses, rewards, margins, accuracies, log-probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.errors import UserError
from ingest.home import write_atomically
from training.log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Points = tuple[list[float], list[float]]
# Okabe and Ito's colors, which the color-blind can tell apart.
_COLORS = ("#0072B2", "#D55E00")
_HELD = "eval_"
_WINDOWS = 25  # a running mean is taken over this part of all steps


class _Panel(NamedTuple):
    """What one panel shows: its title with the unit, and the names in the log with what to call them."""

    title: str
    series: Mapping[str, str]


_PANELS = (
    _Panel("Loss (nats)", {"loss": ""}),
    _Panel("Accuracy", {"accuracy": "", "rewards/accuracies": ""}),
    _Panel("Margin (nats)", {"margin": "", "rewards/margins": ""}),
    _Panel("Rewards (nats)", {"rewards/chosen": "chosen", "rewards/rejected": "rejected"}),
    _Panel("Log-probabilities (nats)", {"logps/chosen": "chosen", "logps/rejected": "rejected"}),
)


def draw(log: Path, out: Path) -> None:
    """Draw what a trainer's log holds as a PNG, a panel for each kind of number in it.

    Thin lines are single looks at the training rows, thick ones their running mean, points the looks at held-out rows. Raises
    UserError where the log holds nothing to draw, or where matplotlib, an optional part, is not installed.
    """
    lines = read_log(log)
    logged = {name for line in lines for name, value in line.items() if value is not None}
    panels = [panel for panel in _PANELS if any({name, _HELD + name} & logged for name in panel.series)]
    if not panels:
        raise UserError(f"{log} holds nothing to draw; give the trainer_log.jsonl that a trained stage wrote")
    try:
        write_atomically(out, _png(lines, panels))
    except ImportError as error:
        raise UserError('curves are drawn by matplotlib; run: pip install "mcqa-assistant[plots]"') from error
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror})") from error


def _png(lines: Sequence[Mapping[str, Any]], panels: Sequence[_Panel]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no window, no global state.
    rows = (len(panels) + 1) // 2
    columns = min(2, len(panels))
    figure = Figure(figsize=(5.5 * columns, 3.2 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, axes in zip(panels, places, strict=False):
        _draw(axes, panel, lines)
    for empty in places[len(panels) :]:
        empty.remove()
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: "Axes", panel: _Panel, lines: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shown = list(_series(panel, lines))
    seen: list[float] = []  # what has to lie within the panel: of single looks, not the farthest out
    for place, (label, trained, held) in enumerate(shown):
        color = _COLORS[place]
        if trained[0]:
            means = _smooth(trained)
            ordered = sorted(trained[1])
            seen += [*means[1], ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]]
            axes.plot(*trained, color=color, linewidth=0.7, alpha=0.3)
            axes.plot(*means, color=color, linewidth=1.8, label=f"{label} training".strip())
        if held[0]:
            seen += held[1]
            of_held = _COLORS[1] if len(shown) == 1 else color
            axes.plot(
                *held, color=of_held, marker="o" if place == 0 else "s", markersize=4.5, linewidth=1, linestyle="--",
                label=f"{label} held out".strip(),
            )  # fmt: skip
    axes.set(title=panel.title, xlabel="step")
    if panel.title == "Accuracy":
        seen = [0.0, 1.0]
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    room = 0.05 * (max(seen) - min(seen)) or 0.05
    axes.set_ylim(min(seen) - room, max(seen) + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _series(panel: _Panel, lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, _Points, _Points]]:
    """Yield what to call each series that was logged, with its points of training and of held-out rows."""
    for name, label in panel.series.items():
        trained, held = (_points(lines, prefix + name) for prefix in ("", _HELD))
        if trained[0] or held[0]:
            yield label, trained, held


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> _Points:
    found = [(float(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def _smooth(points: _Points) -> _Points:
    """Return the mean of what stands around each point."""
    steps, values = points
    reach = max(1, len(values) // _WINDOWS)
    windows = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return steps, [sum(window) / len(window) for window in windows]
