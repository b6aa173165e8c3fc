"""What training tells: a log that a stop does not show in, an estimate, a warning, and an end where the loss is no number."""

import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from ingest.errors import UserError
from training.log import read_log
from training.loop import Job, Standing
from training.progress import Log, Watch, falls, watching


class Line(torch.nn.Module):
    """y = w x, whose loss is that of least squares; it also logs what a test wants it to."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.w * x - labels) ** 2).mean()}


Fit = Callable[..., float]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Return a function that fits a line with some callbacks, from 24 points, and returns its slope."""

    def run(callbacks: list[TrainerCallback], name: str = "run", resume: bool = False, **settings: Any) -> float:
        points = [{"x": torch.tensor(float(x)), "labels": torch.tensor(2.0 * x)} for x in range(1, 25)]
        given = {
            "output_dir": str(tmp_path / name / "checkpoints"), "per_device_train_batch_size": 2, "num_train_epochs": 2,
            "learning_rate": 0.05, "logging_steps": 1, "save_strategy": "steps", "save_steps": 5, "eval_strategy": "steps",
            "eval_steps": 5, "report_to": [], "use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False,
            "dataloader_pin_memory": False,
        }  # fmt: skip
        trainer = Trainer(
            Line(), TrainingArguments(**given | settings), train_dataset=points, eval_dataset=points[:4], callbacks=callbacks
        )
        trainer.train(resume_from_checkpoint=resume)
        return float(trainer.model.w.detach())

    return run


class Stop(TrainerCallback):
    """Ends training as a kill would, and leaves half a line in the log."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 13:
            with self.log.open("a") as file:
                file.write('{"step": 13, "lo')
            raise KeyboardInterrupt


def test_the_log_of_a_resumed_run_is_that_of_one_that_was_not_stopped(fit: Fit, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    stopped.write_text('{"step": 7, "loss": 1.0}\n')  # an earlier run's
    slope = fit([Log(whole)], "whole")
    with pytest.raises(KeyboardInterrupt):
        fit([Log(stopped), Stop(stopped)], "stopped")
    assert read_log(stopped)[-1]["step"] == 12
    assert fit([Log(stopped)], "stopped", resume=True) == slope
    assert stopped.read_text() == whole.read_text()
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert [line["step"] for line in lines if "eval_loss" in line] == [5, 10, 15, 20, 24]
    assert not any(name.endswith(("runtime", "per_second")) for line in lines for name in line)


def test_a_loss_that_is_no_number_stops_training_and_says_where(fit: Fit, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(UserError, match=r"the loss is no number \(loss (nan|inf)\) at step \d+; lower the learning_rate"):
        fit([Log(log), Watch(lambda _: None)], learning_rate=1e30, max_grad_norm=0.0, optim="sgd")
    assert read_log(log)[-1]["loss"] is None  # as JSON has it


def test_the_rest_of_the_time_is_told_after_twenty_steps(fit: Fit) -> None:
    told: list[str] = []
    fit([Watch(told.append)])
    assert len(told) == 1
    assert "for the 4 that are left" in told[0]
    assert told[0].startswith("a step takes 0.0")


def looks(chosen: float, margin: float, of: str, seed: int = 0) -> list[dict[str, float]]:
    """60 logged looks at training rows in which chosen answers and the margin change by so much, with noise."""
    draw = random.Random(seed)
    keys = {"dpo": ("rewards/chosen", "rewards/margins"), "mcq": ("logps/chosen", "margin")}[of]
    return [
        {"loss": 0.5, keys[0]: chosen * at / 60 + draw.gauss(0, 0.5), keys[1]: margin * at / 60 + draw.gauss(0, 0.5)}
        for at in range(60)
    ]


@pytest.mark.parametrize("of", ["dpo", "mcq"])
@pytest.mark.parametrize(
    ("chosen", "margin", "warns"),
    [(-3, 3, True), (3, 3, False), (0, 3, False), (-3, 0, False), (-0.2, 3, False)],
    ids=["falls", "rises", "stays", "without-margin", "within-noise"],
)
def test_chosen_answers_that_become_unlikely_are_warned_of_once(of: str, chosen: float, margin: float, warns: bool) -> None:
    told: list[str] = []
    watch = Watch(told.append)
    state = TrainerState(is_world_process_zero=True)
    for step, logs in enumerate(looks(chosen, margin, of), start=1):
        state.global_step = step
        watch.on_log(None, state, None, logs)
    assert len(told) == warns
    assert all("chosen answers are clearly less likely" in text for text in told)


def test_what_was_logged_before_a_stop_counts() -> None:
    told: list[str] = []
    watch = Watch(told.append)
    seen = looks(-3, 3, "dpo")
    state = TrainerState(is_world_process_zero=True, log_history=seen[:30])
    watch.on_train_begin(None, state, None)
    for logs in seen[30:]:
        watch.on_log(None, state, None, logs)
    assert len(told) == 1


def test_few_looks_show_nothing() -> None:
    assert not falls([(0.0, 0.0)] * 20, [(-9.0, 9.0)] * 19)
    assert falls([(0.0, 0.0)] * 20, [(-9.0, 9.0)] * 20)


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_drawn_on_terminals_only(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    steps: list[Standing] = []
    with watching(Job(tmp_path / "job", "m", "llama", on_step=steps.append)) as callbacks:
        fit(callbacks)
    shown = screen.getvalue()
    if terminal:
        assert "Training" in shown
        assert "24/24" in shown
    else:
        assert shown == ""
    assert (steps[-1].step, steps[-1].steps) == (24, 24)
    assert math.isfinite(steps[-1].logged["loss"])
    assert (tmp_path / "job" / "trainer_log.jsonl").is_file()
