"""Variants compared: on outcomes worked out by hand, with the real model, and in processes of their own."""

import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest

from assistant import report as reports
from assistant.answer import Assistant
from assistant.evaluate import Outcome, Report, Result, Variant, compare, evaluate, evaluate_apart, variants
from assistant.items import Item, read_items
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.plot import png
from ingest.course import Course
from ingest.errors import UserError

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
ITEMS = read_items(CORPUS / "operating-systems" / "questions.jsonl").items


def outcome(number: int, key: str, probabilities: tuple[float, ...], **more: Any) -> Outcome:
    letter = "ABCD"[probabilities.index(max(probabilities))]
    return Outcome(f"q{number}", "even" if number % 2 == 0 else "odd", key, letter, probabilities, **more)


def result(name: str, outcomes: list[Outcome]) -> Result:
    return Result(
        Variant(name), tuple(outcomes), "cloze", 0, "float32", "cpu", 1.0, weight_bytes=2 * 10**8, peak_bytes=5 * 10**8
    )


@pytest.fixture
def report() -> Report:
    sure, unsure = (0.7, 0.1, 0.1, 0.1), (0.2, 0.4, 0.2, 0.2)
    first = [outcome(n, key, sure, seconds=1.0, tokens=10) for n, key in enumerate("AABC")]  # A A A A: 2 right
    other = [
        outcome(n, key, p, seconds=2.0 * n) for n, (key, p) in enumerate(zip("AABC", (sure, sure, unsure, unsure), strict=True))
    ]
    unable = Outcome("q4", "even", "D", None, error="too long | for it")
    return compare(
        [result("first", [*first, unable]), result("other", [*other, outcome(4, "D", sure)])],
        source="by hand",
        failed={"third": "not there"},
    )


def test_variants_are_every_combination_once_models_slowest() -> None:
    found = variants(["a", None], ["none", "int8"], [None, "os"], ["cloze"], [1, 3])
    assert found[0] == Variant("a", "none", None, "cloze")
    assert len(found) == len(set(found)) == 2 * 2 * (1 + 2)  # without a course, the number of passages means nothing
    assert [variant.model for variant in found] == ["a"] * 6 + [None] * 6
    assert len({variant.name for variant in found}) == len(found)
    assert found[-1].name == "smollm2-135m-mcqa, int8, os, 3 passages, cloze"
    assert variants() == [Variant()]


def test_figures_of_a_comparison_worked_out_by_hand(report: Report) -> None:
    assert report.n == 4  # q4 could not be answered by the first
    assert report.left_out == {"q4": "first, no course: too long | for it"}
    assert report.chance == 0.25
    first, other = report.summaries
    assert first.against_first is None
    assert (first.correct, other.correct) == (2, 3)
    assert other.against_first is not None
    assert (other.against_first.gained, other.against_first.lost, other.against_first.p) == (1, 0, 1.0)
    assert first.subjects == {"even": (1, 2), "odd": (1, 2)}
    assert other.subjects == {"even": (2, 2), "odd": (1, 2)}
    assert other.recalls == {"A": (2, 2), "B": (1, 1), "C": (0, 1)}
    assert first.recall_spread == pytest.approx(2**0.5 / 3)  # of (1, 0, 0)
    assert first.confidence == pytest.approx(0.7)
    assert first.calibration_error == pytest.approx(0.2)
    assert other.calibration_error == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)
    assert other.coverage == [(2, 2), (4, 3)]
    assert (first.seconds, first.tokens) == (1.0, 10.0)
    assert (other.seconds, other.seconds_p95) == (3.0, pytest.approx(5.7))


def test_only_the_same_items_can_be_compared() -> None:
    one = result("one", [outcome(1, "A", (0.6, 0.4))])
    with pytest.raises(ValueError, match="not on the same items"):
        compare([one, result("two", [outcome(2, "A", (0.6, 0.4))])])
    with pytest.raises(UserError, match="no question was answered by all variants; the first reason: two, no course: too long"):
        compare([one, result("two", [Outcome("q1", "odd", "A", None, error="too long")])])


def test_markdown_says_all_and_stays_in_its_tables(report: Report) -> None:
    text = reports.markdown(report, picture="reliability.png")
    assert "n = 4 questions, 2 subjects, chance 25.0 %" in text
    assert "| first, no course | 50.0 (15.0-85.0) | – | – | – | – |" in text
    assert re.search(
        r"\| other, no course \| 75\.0 \(30\.1-95\.4\) \| \+25\.0 \([-+.\d]+ to [-+.\d]+\) \| 1 \| 0 \| 1\.0000 \|", text
    )
    assert "too long \\| for it" in text
    assert "- third: not there" in text
    assert "![Reliability, and accuracy over coverage](reliability.png)" in text
    assert "| first, no course | 1.000 | 1.000 | 10 | 1.0 | 200 | 500 | not known |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for lines in tables:
        columns = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        assert len(set(columns)) == 1, lines
    explained = re.findall(r"^- \*(.+?)\*: .+\.$", text, re.MULTILINE)
    assert {"accuracy", "gain", "p", "calibration error", "spread", "tokens", "peak, at the end"} <= set(explained)


def test_json_holds_every_figure_and_outcome(report: Report) -> None:
    record = json.loads(json.dumps(reports.to_json(report)))
    first, other = record["variants"]
    assert first["accuracy"] == {"value": 0.5, "interval": pytest.approx([0.15, 0.85], abs=1e-3), "right": 2, "n": 4}
    assert other["against_first"]["mcnemar_p"] == 1.0
    assert other["coverage"] == [{"answered": 2, "right": 2}, {"answered": 4, "right": 3}]
    assert len(other["outcomes"]) == 5
    assert other["outcomes"][0]["probabilities"] == [0.7, 0.1, 0.1, 0.1]
    assert first["outcomes"][4]["error"] == "too long | for it"


def test_the_picture_shows_every_variant_and_panel() -> None:
    """Drawn pixels: each variant's color stands in both halves, so neither panel is empty and none hides the other."""
    from io import BytesIO

    import numpy as np
    from matplotlib.image import imread

    unlike = [
        result(name, [outcome(n, "ABCD"[n % 4], (0.4 + n / 100, 0.3, 0.2 - n / 200, 0.1 - n / 200)[::step]) for n in range(20)])
        for name, step in (("one", 1), ("other", -1))
    ]
    picture = (imread(BytesIO(png(compare(unlike))), format="png")[:, :, :3] * 255).round().astype(int)
    half = picture.shape[1] // 2
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        drawn = (np.abs(picture - np.array(color)).max(axis=2) < 8).any(axis=0)
        assert drawn[:half].sum() > 20
        assert drawn[half:].sum() > 20
    # Many variants and one item draw as well.
    many = [result(f"variant {n}", [outcome(1, "A", (0.6, 0.4))]) for n in range(9)]
    assert png(compare(many)).startswith(b"\x89PNG")


def test_a_report_is_written_whole_and_not_over_another(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "report"
    reports.check_folder(folder, force=False)
    assert {path.name for path in reports.write_report(report, folder)} == {"report.md", "report.json", "reliability.png"}
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.json", "reliability.png"}
    with pytest.raises(UserError, match="already holds a report; choose another folder with -o, or overwrite it with --force"):
        reports.check_folder(folder, force=False)
    reports.check_folder(folder, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        reports.check_folder(tmp_path / "file", force=False)

    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(_from: Path, _to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reports.write_report(replace(report, source="another"), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_matplotlib_the_rest_is_written(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not reports.can_draw()
    assert {path.name for path in reports.write_report(report, tmp_path)} == {"report.md", "report.json"}
    assert ".png" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_real_model_is_evaluated_as_it_answers(lm: LanguageModel, operating_systems: Course) -> None:
    items = ITEMS[:4]
    seen: list[tuple[int, int]] = []
    found = evaluate(Variant(), items, lambda _: Assistant(lm), lambda *counts: seen.append(counts))
    assert (seen[0], seen[-1]) == ((0, 4), (4, 4))
    for item, of_item in zip(items, found.outcomes, strict=True):
        answer = Assistant(lm).answer(item.mcq)
        assert (of_item.id, of_item.key, of_item.letter) == (item.id, item.key, answer.letter)
        assert of_item.probabilities == pytest.approx(answer.probabilities, abs=0.03)  # rounding of 16-bit numbers
        options = sum(len(lm.tokenizer(f" {option}").input_ids) for option in item.mcq.options)
        assert of_item.tokens == len(lm.encode(f"Question: {item.mcq.question}\nAnswer:")) + options
        assert 0 < of_item.seconds < 30
    with_course = evaluate(Variant(course="os"), items, lambda _: Assistant(lm, operating_systems))
    assert all(more.tokens > less.tokens + 100 for more, less in zip(with_course.outcomes, found.outcomes, strict=True))
    assert (found.scoring, found.passages, with_course.passages) == ("cloze", 0, lm.card.passages)


def test_examples_reach_the_model(lm: LanguageModel) -> None:
    examples = tuple(item.mcq for item in ITEMS[5:7])
    bare = evaluate(Variant(), ITEMS[:1], lambda _: Assistant(lm)).outcomes[0]
    item = replace(ITEMS[0], examples=examples)
    shown = evaluate(Variant(), [item], lambda _: Assistant(lm)).outcomes[0]
    assert shown.tokens > bare.tokens + 20
    assert shown.probabilities != bare.probabilities
    assert shown.probabilities == Assistant(lm).answer(item.mcq, examples).probabilities


def test_an_item_beyond_the_window_is_left_out_for_all(lm: LanguageModel) -> None:
    long = Item("long", MCQ("word " * 9000, ("x", "y"), "A"), "s")
    items = [long, *ITEMS[:2]]
    found = evaluate(Variant(), items, lambda _: Assistant(lm))
    assert found.outcomes[0].letter is None
    able = replace(found, variant=Variant("able"), outcomes=(outcome(0, "A", (0.6, 0.4)), *found.outcomes[1:]))
    able = replace(able, outcomes=(replace(able.outcomes[0], id="long"), *able.outcomes[1:]))
    compared = compare([able, found])
    assert compared.n == 2
    assert "shorten it" in compared.left_out["long"]


def test_each_variant_has_a_process_and_memory_of_its_own() -> None:
    ballast = bytearray(os.urandom(1024)) * (1024 * 400)  # of this process, which must not count
    big = evaluate_apart(Variant("200"), [], fakes.build_with_ballast)
    small = evaluate_apart(Variant("1"), [], fakes.build_with_ballast)
    assert big.peak_bytes
    assert small.peak_bytes
    assert small.resident_bytes
    assert 190 * 2**20 < big.peak_bytes - small.peak_bytes < 230 * 2**20
    assert small.peak_bytes < len(ballast)
    assert small.resident_bytes <= small.peak_bytes


def test_what_goes_wrong_in_the_process_is_told_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such model"):
        evaluate_apart(Variant(), [], fakes.build_unloadable)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        evaluate_apart(Variant(), [], fakes.build_wrong)
    with pytest.raises(UserError, match="ended with status -9, .*; use a smaller --model or --quantize"):
        evaluate_apart(Variant(), [], fakes.build_and_die)


def test_stopping_ends_the_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal
    import threading

    note = tmp_path / "pid"
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop() -> None:
        while not note.exists() or not note.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        evaluate_apart(Variant(str(note)), [], fakes.build_for_ever)
    signal.signal(signal.SIGINT, before)
    assert not fakes.is_running(int(note.read_text()))
