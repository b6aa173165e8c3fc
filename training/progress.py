"""What a trainer tells while it trains: a log to read later, a bar to watch, and warnings of a run that goes wrong.

Importing this module imports transformers.
"""

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assistant import render
from ingest.errors import UserError
from ingest.home import write_atomically
from training.log import LOG, log_line, read_log
from training.loop import Job, Standing

_CLOCK = ("runtime", "per_second", "_time", "total_flos")  # ends of names whose values differ from run to run
_TIMED = 20  # steps, after which the time they took is told
_WINDOW = 20  # looks at the training rows, at the beginning and at the end, that are compared
_ERRORS = 3  # standard errors that a change has to exceed


@contextmanager
def watching(job: Job) -> Iterator[list[TrainerCallback]]:
    """Yield the callbacks for the trainer of a job: its log file, its warnings through `on_status`, and a live bar.

    The bar is drawn on standard error where that is a terminal, from the first step to the end of the block.
    """
    columns = (
        TextColumn("Training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    callbacks = [Log(job.folder / LOG), Watch(job.on_status)]
    if not sys.stderr.isatty():
        yield [*callbacks, Report(job.on_step)]
        return
    with render.progress(*columns, loss=math.nan) as update:

        def on_step(at: Standing) -> None:
            update(completed=at.step, total=at.steps, loss=at.logged.get("loss", math.nan))
            job.on_step(at)

        yield [*callbacks, Report(on_step)]


class Log(TrainerCallback):  # type: ignore[misc]
    """Writes each thing that the trainer logs as a line of JSON: the step, the epoch and numbers by name.

    Where training goes on from a checkpoint, lines after its step are dropped first: in the end the file is the one of a run
    that was never stopped, since what a clock says is left out. What is no number (NaN) is written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Keep the lines up to the checkpoint's step; of a run that begins, none."""
        if state.is_world_process_zero:
            kept = [line for line in read_log(self.path) if line["step"] <= state.global_step] if state.global_step else []
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(map(log_line, kept)))

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append a line, unless the event is the summary at the end."""
        if not logs or "train_runtime" in logs or not state.is_world_process_zero:
            return
        numbers = {name: value for name, value in logs.items() if not name.endswith(_CLOCK)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(log_line({"step": state.global_step, **numbers}))


class Report(TrainerCallback):  # type: ignore[misc]
    """Tells `on_step` after each step how far training has come, and what was logged last."""

    def __init__(self, on_step: Callable[[Standing], None]) -> None:
        self.on_step = on_step
        self._logged: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Pass on what was logged."""
        self._logged |= {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if state.is_world_process_zero:
            self.on_step(Standing(state.global_step, state.max_steps, dict(self._logged)))


class Watch(TrainerCallback):  # type: ignore[misc]
    """Says after some steps how long the rest will take, warns where good answers lose probability, and stops at NaN.

    Preference losses only ask that the chosen answer gains on the rejected one; they are content where both become unlikely
    (Pal et al. 2024, arXiv 2402.13228). Looked at is what the chosen answers gained over the reference (`rewards/chosen`) where
    that is logged, else their own log-probability, over the first and over the last looks at the training rows.
    """

    def __init__(self, on_status: Callable[[str], None]) -> None:
        self.on_status = on_status
        self._durations: list[float] = []
        self._began = 0.0
        self._first: list[tuple[float, float]] = []
        self._last: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._warned = False

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Let a loss that is NaN be seen; transformers would log the mean of earlier ones instead."""
        args.logging_nan_inf_filter = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Take up what was logged before the checkpoint that training goes on from."""
        for logs in state.log_history:
            self._take(logs)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Look at the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """After some steps, tell how long the others will take."""
        if len(self._durations) == _TIMED:
            return
        self._durations.append(time.perf_counter() - self._began)
        if len(self._durations) == _TIMED and state.is_world_process_zero and state.max_steps > state.global_step:
            each, left = statistics.median(self._durations), state.max_steps - state.global_step
            self.on_status(
                f"a step takes {each:.2g} s: {_duration(each * left)} for the {left} that are left, held-out looks aside"
            )

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Raise UserError where the loss is no number; warn, once, where chosen answers become unlikely."""
        logs = logs or {}
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise UserError(
                    f"the loss is no number ({name} {logs[name]}) at step {state.global_step}; lower the learning_rate, raise "
                    "warmup, or compute in bf16 or fp32; what was written before is in the last checkpoint"
                )
        if self._take(logs) and not self._warned and falls(self._first, list(self._last)):
            self._warned = True
            if state.is_world_process_zero:
                self.on_status(
                    f"warning: at step {state.global_step} the chosen answers are clearly less likely than at first, while the "
                    "margin grows: both kinds lose, the rejected ones more; lower the learning_rate or the epochs, or raise "
                    "beta where there is one"
                )

    def _take(self, logs: Mapping[str, Any]) -> bool:
        """Keep what the training rows of this look came to; returns whether there was anything."""
        chosen = logs.get("rewards/chosen", logs.get("logps/chosen"))
        margin = logs.get("rewards/margins", logs.get("margin"))
        if chosen is None or margin is None:
            return False
        if len(self._first) < _WINDOW:
            self._first.append((chosen, margin))
        else:
            self._last.append((chosen, margin))
        return True


def falls(first: list[tuple[float, float]], last: list[tuple[float, float]]) -> bool:
    """Say whether from the first to the last looks, each (chosen, margin), chosen fell and the margin grew, both clearly.

    A change is clear where it exceeds three standard errors of the difference of the two means. Few looks show nothing.
    """
    if min(len(first), len(last)) < _WINDOW:
        return False
    (chosen, chosen_error), (margin, margin_error) = (
        _change([look[place] for look in first], [look[place] for look in last]) for place in (0, 1)
    )
    return chosen < -_ERRORS * chosen_error and margin > _ERRORS * margin_error


def _change(first: list[float], last: list[float]) -> tuple[float, float]:
    """Return by how much the mean rose, and the standard error of that."""
    error = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(last) / len(last))
    return statistics.fmean(last) - statistics.fmean(first), error


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
