"""Reports of an evaluation: the same figures in Markdown, in JSON, and as a picture."""

import json
import math
from pathlib import Path

import pytest

from assistant.evaluate import Comparison
from ingest.errors import UserError
from training.bootstrap import Estimate
from training.evaluate import PreferenceReport, Preferences, Ranked, Report, ResponseReport, Responses, Rewards, Variant
from training.report import estimate, left_out, png, to_json, write_report

AGAINST = Comparison(gained=12, lost=4, interval=(0.01, 0.15), p=0.0768)
UNKNOWN = Estimate(2.5, -math.inf, math.inf)


@pytest.fixture
def report() -> Report:
    base = Preferences(Ranked(40, 100), Ranked(45, 100), Estimate(-90, -95, -85), Estimate(-80, -84, -76), UNKNOWN, None)
    rewards = Rewards(Ranked(62, 100, AGAINST), Estimate(0.25, 0.1, 0.4), Estimate(0.5, 0.3, 0.7), Estimate(0.25, 0.2, 0.3))
    tuned = Preferences(
        Ranked(48, 100, AGAINST), Ranked(50, 100, AGAINST), Estimate(-85, -90, -80), Estimate(-82, -87, -77), UNKNOWN, rewards
    )
    read = (
        Responses(Estimate(2.0, 1.9, 2.1), Estimate(7.39, 6.69, 8.17), None, 500),
        Responses(Estimate(1.9, 1.8, 2.0), Estimate(6.69, 6.05, 7.39), Estimate(-0.1, -0.15, -0.05), 500),
    )
    return Report(
        variants=(Variant("base", None), Variant("_tuned|x", "runs/model", "int8")),
        summaries=("base, 269 MB", "runs/model, 167 MB, int8"),
        form="alpaca",
        max_length=512,
        questions=(),
        preferences=PreferenceReport(100, 80, 0.1, (base, tuned), left_out=3),
        responses=(ResponseReport("TruthfulQA.csv", 50, 49, read, left_out=0),),
        notes=("rows.jsonl row 4: no 'chosen'",),
    )


def test_all_three_are_written_and_say_the_same(report: Report, tmp_path: Path) -> None:
    written = write_report(report, tmp_path / "out")
    assert sorted(path.name for path in written) == ["evaluation.png", "report.json", "report.md"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| _tuned\\|x |" in text
    assert "62.0 (52.2-70.9)" in text  # Wilson's interval of 62 in 100
    assert "+8.0 (+1.0 to +15.0) | 0.0768" in text
    assert "-0.100 (-0.150 to -0.050)" in text
    assert "format alpaca" in text
    assert "- 3 pairs whose prompt alone fills 512 tokens" in text
    assert "- rows.jsonl row 4: no 'chosen'" in text
    assert "![The figures with their intervals](evaluation.png)" in text
    record = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(to_json(report), allow_nan=False))
    accuracy = record["preferences"]["models"][1]["rewards"]["accuracy"]
    assert accuracy["value"] == 0.62
    assert accuracy["interval"] == pytest.approx([0.522, 0.709], abs=5e-4)
    assert accuracy["against"]["gain"] == 0.08
    assert record["preferences"]["models"][0]["margin"] == {"value": 2.5, "interval": None}
    assert record["variants"][1]["quantize"] == "int8"


def test_the_picture_is_one_and_grows_with_its_panels(report: Report) -> None:
    import struct
    from dataclasses import replace

    def size(picture: bytes) -> tuple[int, int]:
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", picture[16:24])
        return width, height

    both, one = size(png(report)), size(png(replace(report, preferences=None)))
    assert both[0] > one[0]
    assert both[1] == one[1]


def test_an_interval_that_is_not_known_is_not_made_up() -> None:
    assert estimate(Estimate(1.5, 1.25, 1.75), 2) == "1.50 (1.25 to 1.75)"
    assert estimate(Estimate(0.5, 0.1, 0.9), 1, sign=True) == "+0.5 (+0.1 to +0.9)"
    assert estimate(UNKNOWN, 1) == "2.5 (not known)"


def test_what_was_left_out_is_counted(report: Report) -> None:
    assert left_out(report) == [
        "rows.jsonl row 4: no 'chosen'",
        "3 pairs whose prompt alone fills 512 tokens or a model's window",
    ]


def test_a_folder_that_cannot_be_written_is_named(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"file cannot be written .*; choose another folder with -o"):
        write_report(report, tmp_path / "file")
