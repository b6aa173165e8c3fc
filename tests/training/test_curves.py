"""A log becomes a picture of what is in it; what cannot be drawn says why."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ingest.errors import UserError
from training.curves import draw

PREFERENCES = [
    {
        "step": step,
        "loss": 1 / step,
        "rewards/chosen": 0.1 * step,
        "rewards/rejected": -0.1 * step,
        "rewards/margins": 0.2 * step,
    }
    | {"rewards/accuracies": 0.5, "logps/chosen": -9.0, "logps/rejected": -10.0 - step}
    for step in range(1, 51)
] + [{"step": 25, "eval_loss": 0.5, "eval_rewards/margins": 1.0}, {"step": 50, "eval_loss": 0.4, "eval_rewards/margins": 2.0}]
QUESTIONS = [{"step": step, "loss": 1 / step, "accuracy": 0.5, "margin": 0.1} for step in range(1, 9)] + [
    {"step": 8, "eval_loss": 0.5, "eval_accuracy": 0.75}
]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **named: Any) -> None:
        saved.append(figure)
        save(figure, *args, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


@pytest.mark.parametrize(
    ("lines", "titles"),
    [
        (PREFERENCES, ["Loss", "Accuracy", "Margin", "Rewards", "Log-probabilities"]),
        (QUESTIONS, ["Loss", "Accuracy", "Margin"]),
        ([{"step": 1, "loss": 2.0}], ["Loss"]),
    ],
    ids=["dpo", "mcq", "a-step"],
)
def test_there_is_a_panel_for_what_was_logged(
    tmp_path: Path, figures: list[Figure], lines: list[dict[str, Any]], titles: list[str]
) -> None:
    draw(write(tmp_path / "log.jsonl", lines), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title().split(" (")[0] for axes in figures[0].axes] == titles


def test_the_lines_show_the_numbers_of_the_log(tmp_path: Path, figures: list[Figure]) -> None:
    nothing = [{"step": 51, "loss": None}]  # where it was no number
    draw(write(tmp_path / "log.jsonl", PREFERENCES + nothing), tmp_path / "curves.png")
    loss = figures[0].axes[0]
    single, mean, held = loss.get_lines()
    assert list(single.get_ydata()) == [line["loss"] for line in PREFERENCES if "loss" in line]
    assert mean.get_ydata()[10] == pytest.approx(sum(1 / step for step in range(9, 14)) / 5)
    assert (list(held.get_xdata()), list(held.get_ydata())) == ([25, 50], [0.5, 0.4])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "held out"]


def test_a_log_of_nothing_and_a_missing_library_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl holds nothing to draw"):
        draw(tmp_path / "none.jsonl", tmp_path / "curves.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"mcqa-assistant\[plots\]"):
        draw(write(tmp_path / "log.jsonl", QUESTIONS), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
