"""The commands as a user meets them."""

import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import HashAssistant

from assistant import cli
from assistant.answer import Answer
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from ingest.course import Course
from training import cli as training_cli

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
QUESTION = "Which bit of a page table entry says that a page was modified? A. present B. writable C. dirty D. user"


class Result:
    """What a command left: its exit status and what it printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def mcqa(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: object, stdin: str | None = None, main=cli.main) -> Result:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(sys, "argv", ["mcqa", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def indexed(home: Path, operating_systems: Course) -> Path:
    """A data folder that holds a copy of the sample course."""
    shutil.copytree(operating_systems.material.parent, home / "courses" / "operating-systems")
    return home


def test_help_answers_in_a_blink_and_loads_nothing_heavy() -> None:
    for module in ("assistant.cli", "training.cli"):
        heavy = ("torch", "transformers", "chromadb", "gradio", "numpy")
        code = f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        shown = subprocess.run([Path(sys.executable).with_name("mcqa"), "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert all(command in shown.stdout for command in ("index", "courses", "ask", "batch", "ui"))
    assert statistics.median(seconds) < 0.5


def test_a_course_from_folder_to_answer(mcqa, home: Path, folder: Path, lm: LanguageModel) -> None:  # type: ignore[no-untyped-def]
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    first = mcqa("index", folder, "--course", "os")
    assert "3 new" in first.out
    assert "not indexed: broken.pdf" in first.out
    assert (first.status, "broken.pdf" in first.err) == (1, True)
    again = mcqa("index", folder, "--course", "os")
    assert "3 unchanged" in again.out
    assert "Indexing" not in again.err
    assert json.loads(mcqa("index", folder, "-c", "os", "--json").out)["failed"].keys() == {"broken.pdf"}

    listed = mcqa("courses")
    assert re.search(r"os\s+3\s+18\s+\d+", listed.out)
    assert "broken.pdf" in listed.out
    assert json.loads(mcqa("courses", "--json").out)[0]["course"] == "os"
    assert "os: all is well" in mcqa("courses", "--verify").out

    asked = mcqa("ask", QUESTION)  # the only course is taken
    assert asked.status == 0
    assert re.search(r"Answer: [A-D]", asked.out)
    assert "02-memory.pdf, p. 2" in asked.out
    assert sum(float(share) for share in re.findall(r"([\d.]+) %", asked.out)[:4]) == pytest.approx(100, abs=0.3)

    assert mcqa("courses", "--remove", "os").status == 0
    assert "No course is indexed yet" in mcqa("courses").out
    assert len(list(folder.glob("*.pdf"))) == 4


def test_ask_reads_standard_input_and_prints_json(mcqa, indexed: Path, lm: LanguageModel) -> None:  # type: ignore[no-untyped-def]
    piped = mcqa("ask", "-", "--json", "--course", "operating-systems", stdin=QUESTION)
    record = json.loads(piped.out)
    assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert record["sources"][0]["document"] == "02-memory.pdf"
    bare = json.loads(mcqa("ask", "--json", "--no-course", "--scoring", "letter", stdin=QUESTION).out)
    assert bare["sources"] == []
    assert bare["scoring"] == "letter"
    assert json.loads(mcqa("ask", QUESTION, "--json", "--passages", "1").out)["sources"][0]["page_first"] == 2


def test_ask_in_a_terminal_takes_one_question_after_another(mcqa, indexed: Path, lm: LanguageModel, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(f"{QUESTION}\n\nno options here\n\nIs it?\nA. yes\nB. no\n"))
    result = mcqa("ask")
    assert result.status == 0
    assert len(re.findall(r"Answer: [A-D]", result.out)) == 2
    assert "no options found" in result.err


def test_batch_ends_with_accuracy_and_its_interval(mcqa, indexed: Path, lm: LanguageModel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "answers.jsonl"
    result = mcqa("batch", CORPUS / "operating-systems" / "questions.jsonl", "-o", output, "--course", "operating-systems")
    assert result.status == 0
    assert re.search(r"Accuracy \d+\.\d % \(95 % interval \d+\.\d-\d+\.\d %, n = 25\)", result.out)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["id"] for record in records] == [f"os-{n:02}" for n in range(1, 26)]
    refused = mcqa("batch", CORPUS / "operating-systems" / "questions.jsonl", "-o", output, "--no-course")
    assert (refused.status, "already exists" in refused.err) == (1, True)


def test_a_batch_with_a_bad_line_answers_the_rest_and_says_which(mcqa, home: Path, lm: LanguageModel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "q.jsonl"
    good = json.dumps({"question": "Is it?", "choices": ["yes", "no"], "answer": "A"})
    hostile = json.dumps({"question": "Is it?", "choices": ["yes", "no"], "answer": "\x1b[2J"})
    source.write_text("\n".join([good] * 6 + ["{bad", good, hostile]), encoding="utf-8")
    result = mcqa("batch", source, "-o", tmp_path / "o.jsonl", "--no-course", "--json")
    assert result.status == 3
    assert f"{source} line 7: not valid JSON" in result.err
    summary = json.loads(result.out)
    assert (summary["rows"], summary["keyed"]) == (9, 7)
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 9
    assert f"{source} line 9: the key is" in result.err
    assert "\x1b" not in result.err


def test_of_many_bad_rows_the_first_are_named(mcqa, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cli, "_assistant", lambda *_: HashAssistant())
    good = {"question": "Is it?", "choices": ["yes", "no"], "answer": "A"}
    source, output = tmp_path / "q.json", tmp_path / "o.csv"
    source.write_text(json.dumps([good, *[{"question": "?", "choices": ["yes"]}] * 40], indent=1), encoding="utf-8")
    result = mcqa("batch", source, "-o", output)
    assert result.status == 3
    assert "1 of 41 questions answered" in result.out
    *named, last = [line for line in result.err.splitlines() if "q.json" in line]
    assert [line.partition(": ")[0] for line in named] == [f"{source} entry {number}" for number in range(2, 7)]
    assert "only one option" in named[0]
    assert f"40 of 41 rows of {source} could not be answered; the first 5 are named above, all in {output}" in last
    assert output.read_text(encoding="utf-8").count("only one option") == 40


def test_a_batch_learns_the_letters_a_model_prefers(mcqa, home: Path, lm: LanguageModel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = CORPUS / "operating-systems" / "questions.jsonl"
    for name, priors in (("plain", ()), ("debiased", ("--priors", 5))):
        result = mcqa("batch", source, "-o", tmp_path / f"{name}.jsonl", "--no-course", "--scoring", "letter", *priors)
        assert result.status == 0
        assert ("learning which letters" in result.err) == bool(priors)
    plain, debiased = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("plain", "debiased"))
    letters = [{json.loads(line)["letter"] for line in lines} for lines in (plain, debiased)]
    assert letters[0] < letters[1]  # it chose fewer letters before
    assert "changes nothing" in mcqa("batch", source, "-o", tmp_path / "x.jsonl", "--no-course", "--priors", 5).err


def test_a_batch_asks_before_it_goes_on_or_starts_over(mcqa, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source, output = tmp_path / "anatomy_test.csv", tmp_path / "o.jsonl"
    source.write_text("Is it?,yes,no,A\n" * 3, encoding="utf-8")
    (tmp_path / "o.jsonl.partial").write_text("{}\n", encoding="utf-8")
    refused = mcqa("batch", source, "-o", output)  # before a model is loaded, or a course chosen
    assert refused.status == 1
    assert "continue that run with --resume, or start over with --force" in refused.err
    monkeypatch.setattr(cli, "_assistant", lambda *_: HashAssistant())
    assert "begun with another input" in mcqa("batch", source, "-o", output, "--resume").err
    assert mcqa("batch", source, "-o", output, "--force", "--format", "mmlu").status == 0
    assert len(output.read_text(encoding="utf-8").splitlines()) == 3
    other = mcqa("batch", source, "-o", tmp_path / "p.jsonl", "--resume", "--format", "csv")
    assert other.status == 3
    assert f"{source} line 1: not in layout csv, it looks like mmlu: no columns A, B" in other.err


def test_a_batch_that_is_interrupted_says_how_to_go_on(mcqa, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Interrupted(HashAssistant):
        def answer(self, mcq: MCQ) -> Answer:
            if self.asked == 17:  # one more than are read together
                raise KeyboardInterrupt
            return super().answer(mcq)

    source, output = tmp_path / "q.csv", tmp_path / "o.jsonl"
    source.write_text("Is it?,yes,no,A\n" * 20, encoding="utf-8")
    monkeypatch.setattr(cli, "_assistant", lambda *_: Interrupted())
    stopped = mcqa("batch", source, "-o", output)
    assert stopped.status == 130
    assert "go on with the same command and --resume" in stopped.err
    monkeypatch.setattr(cli, "_assistant", lambda *_: HashAssistant())
    assert (
        "20 of 20 questions answered (16 taken over from the run before)" in mcqa("batch", source, "-o", output, "--resume").out
    )


def test_evaluate_compares_with_and_without_the_course(mcqa, indexed: Path, lm: LanguageModel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = CORPUS / "operating-systems" / "questions.jsonl"
    command = ("evaluate", "--limit", "6", source, "--no-course", "-c", "operating-systems", "-o", tmp_path / "report")
    result = mcqa(*command)
    assert result.status == 0, result.err
    shown = " ".join(result.out.split())
    assert "n = 6 questions, 1 subject, chance " in shown
    assert "1 smollm2-135m-mcqa, no course 2 smollm2-135m-mcqa, operating-systems" in shown
    assert "…" not in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.md", "report.json", "reliability.png"}
    record = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    bare, with_course = record["variants"]
    assert (bare["course"], with_course["course"]) == (None, "operating-systems")
    assert (bare["passages"], with_course["passages"]) == (0, 2)
    assert with_course["tokens"] > bare["tokens"] + 100
    assert 200e6 < bare["bytes"]["peak"] < 4e9
    asked = json.loads(mcqa("ask", "--json", "-c", "operating-systems", stdin=_as_text(source)).out)
    assert with_course["outcomes"][0]["probabilities"] == pytest.approx(list(asked["probabilities"].values()), abs=0.02)
    again = mcqa(*command)
    assert (again.status, "overwrite it with --force" in again.err) == (1, True)


def _as_text(source: Path) -> str:
    """Return a file's first question as it is pasted."""
    first = json.loads(source.read_text(encoding="utf-8").splitlines()[0])
    return "\n".join([first["question"], *(f"{letter}. {text}" for letter, text in zip("ABCD", first["choices"], strict=True))])


def test_a_variant_that_cannot_be_loaded_does_not_cost_the_others(mcqa, home: Path, lm: LanguageModel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "q.jsonl"
    good = json.dumps({"question": "Is it?", "choices": ["yes", "no"], "answer": "A"})
    source.write_text(
        "\n".join([good, good, "{bad", json.dumps({"question": "Is it?", "choices": ["yes", "no"]})]), encoding="utf-8"
    )
    result = mcqa("evaluate", source, "--model", "./nowhere", "--model", "smollm2-135m-mcqa", "--json")
    assert result.status == 1
    assert f"{source} line 3: not valid JSON" in result.err
    assert "questions without a key, left out: 1" in result.err
    assert "./nowhere, no course: no model folder ./nowhere" in result.err
    assert result.err.splitlines()[-1] == "error: 1 of 2 variants could not be evaluated: ./nowhere, no course"
    record = json.loads(result.out)
    assert [variant["name"] for variant in record["variants"]] == ["smollm2-135m-mcqa, no course"]
    assert list(record["failed"]) == ["./nowhere, no course"]


def test_evaluate_has_a_default_command_beside_the_named_one(mcqa, home: Path) -> None:  # type: ignore[no-untyped-def]
    shown = mcqa("evaluate", "--help").out
    assert "variants" in shown
    assert "retrieval" in shown
    assert "--shots" in mcqa("evaluate", "variants", "-h").out
    assert "Missing argument 'FILE_OR_FOLDER'" in mcqa("evaluate", "--shots", "5").err
    assert "mean reciprocal" in mcqa("evaluate", "retrieval", "--help").out


@pytest.mark.usefixtures("indexed")
def test_every_mistake_is_one_line_with_a_remedy(mcqa, tmp_path: Path, make_pdf) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    make_pdf(tmp_path / "blank" / "scan.pdf", "#rect()")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "keyless.jsonl").write_text(json.dumps({"question": "Is it?", "choices": ["yes", "no"]}))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: x\nmodel: y\narchitecture: llama\ndata: []\nstages:\n"
        "  - {kind: mcq, data: [{file: q.jsonl}], fitting: {learning_rate: 5e-5, epoch: 3}}\n"
    )
    cases: list[tuple[tuple[object, ...], str]] = [
        (("index", tmp_path / "empty", "-c", "x"), "put the course's PDF, DOCX"),
        (("index", tmp_path / "nowhere", "-c", "x"), "does not exist; give the folder"),
        (("index", tmp_path / "blank", "-c", "x"), "scan.pdf: no page has text"),
        (("index", tmp_path, "-c", "../x"), "cannot be a course name"),
        (("ask", QUESTION, "-c", "operating-sistems"), "did you mean 'operating-systems'"),
        (("ask", "What is this?"), "no options found"),
        (("ask", "What is this? A. lonely"), "only one option"),
        (("ask", QUESTION, "--model", "./no-such-model"), "no model folder"),
        (("batch", tmp_path / "none.jsonl", "-o", "x.jsonl"), "cannot be read"),
        (("batch", tmp_path / "a.docx", "-o", "x.jsonl"), "unknown kind of question file"),
        (("batch", tmp_path, "-o", "x.jsonl"), "is a folder; give a file"),
        (("batch", tmp_path / "bad.jsonl", "-o", "x.docx"), "name the output file .jsonl or .csv"),
        (("batch", tmp_path / "bad.jsonl", "-o", tmp_path / "no" / "x.csv"), "does not exist; create it"),
        (("courses", "--remove", "nope"), "no course 'nope'"),
        (("evaluate", tmp_path / "keyless.jsonl"), "an evaluation needs keys; add 'answer'"),
        (("evaluate", tmp_path / "empty"), "holds no question file"),
        (("evaluate", tmp_path / "none.jsonl"), "does not exist"),
        (("evaluate", CORPUS / "operating-systems", "-c", "operating-sistems"), "did you mean 'operating-systems'"),
        (("evaluate", CORPUS / "operating-systems", "--shots", "5"), "--shots 5 takes solved examples from"),
        (("evaluate", CORPUS / "operating-systems", "--subject", "Cooking"), "--subject takes one of Operating Systems"),
    ]
    for arguments, message in cases:
        result = mcqa(*arguments)
        assert result.status == 1, arguments
        *before, last = result.err.splitlines()
        assert last.startswith("error: ")
        assert message in last
        assert all(line.startswith("Indexing ") for line in before), result.err
    result = mcqa("validate", recipe, main=training_cli.main)
    assert result.status == 1
    assert "unknown key 'stages.0.mcq.fitting.epoch', did you mean 'epochs'?" in result.err
    assert "the key 'data' does not belong there" in result.err


def test_without_a_course_the_first_step_is_named(mcqa, home: Path) -> None:  # type: ignore[no-untyped-def]
    result = mcqa("ask", QUESTION)
    assert result.status == 1
    assert "mcqa index FOLDER --course NAME" in result.err


@pytest.mark.usefixtures("home")
def test_wrong_usage_is_status_2(mcqa) -> None:  # type: ignore[no-untyped-def]
    for arguments in (
        ("frobnicate",),
        ("index",),
        ("ask", QUESTION, "--passages", "-1"),
        ("ask", QUESTION, "-c", "x", "--no-course"),
        ("batch", "q.jsonl", "-o", "o.jsonl", "--resume", "--force"),
        ("batch", "q.jsonl", "-o", "o.jsonl", "--format", "mmlo"),
    ):
        assert mcqa(*arguments).status == 2, arguments


def test_terminal_control_characters_in_a_question_are_not_printed(mcqa, home: Path, lm: LanguageModel) -> None:  # type: ignore[no-untyped-def]
    shown = mcqa("ask", "Is \x1b[31m[bold]this[/bold] red? A. yes \x07 B. no", "--no-course").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]this[/bold]" in shown
    refused = mcqa("ask", "Is it? A. yes \x1b[2J", "--course", "\x1b[31m")
    assert refused.status == 1
    assert "\x1b" not in refused.err


def test_an_unwritable_data_folder_is_said(mcqa, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MCQA_HOME", str(tmp_path / "file" / "home"))
    result = mcqa("index", CORPUS / "operating-systems", "-c", "os")
    assert (result.status, "set MCQA_HOME" in result.err) == (1, True)


def test_the_version_is_told() -> None:
    shown = subprocess.run(
        [Path(sys.executable).with_name("mcqa"), "--version"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert re.fullmatch(r"mcqa \d+\.\d+\.\d+\n", shown.stdout)


def test_models_show_how_they_want_to_be_asked(tmp_path: Path) -> None:
    from assistant import render
    from assistant.card import Card, Template

    cards = [
        ("plain", tmp_path, Card()),
        ("own", tmp_path, Card(template=Template(answer="The answer is", lists_options=True))),
    ]
    console = render.console()
    console.width = 200
    with console.capture() as shown:
        console.print(render.models(cards))
    first, second = re.split("(?=^own)", shown.get(), flags=re.MULTILINE)
    assert first.startswith("plain\n")
    assert re.search(r"prompt +standard", first)
    assert "{passage}⏎⏎Question: {question}⏎{letter}. {option}⏎The answer is" in second
