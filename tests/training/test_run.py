"""Recipes carried out from raw data to a model that answers, on tiny models of the real architectures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import tiny_model, write_data

from assistant.answer import Assistant
from assistant.mcq import parse_question
from assistant.model import LanguageModel, load_model
from ingest.course import Course
from ingest.errors import UserError
from training.recipe import Recipe, load_recipe, located
from training.run import Options, run

QUESTION = "What is a stack? A. a thing B. a stack"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, lm: LanguageModel) -> Path:
    """A folder with all data that the packaged recipes name, and the course that one of them searches."""
    folder = write_data(tmp_path_factory.mktemp("data"))
    notes = tmp_path_factory.mktemp("course")
    (notes / "notes.md").write_text("# Lists\n\nA stack is a list whose last entry goes first.\n", encoding="utf-8")
    Course("course").sync(notes)
    return folder


def carried_out(recipe: Recipe, output: Path, material: Path, lm: LanguageModel, **more: Any) -> list[str]:
    """Run a recipe for two steps a stage on a tiny model; returns what it printed."""
    model = tiny_model(recipe.architecture, output.parent / "tiny", lm.tokenizer)
    options = Options(data=material, model=str(model), tokenizer=str(model), max_steps=2, **more)
    return list(run(recipe, output, options))


@pytest.mark.parametrize("name", ["openelm-450m", "phi-2", "mistral-7b", "gpt2-124m", "zephyr-7b"])
def test_a_published_recipe_runs_from_data_to_a_model_that_answers(
    name: str, tmp_path: Path, material: Path, lm: LanguageModel
) -> None:
    recipe = load_recipe(Path(name))
    if len(recipe.variants()) > 2:  # a sweep is carried out where it is a short one
        recipe = recipe.variants()[0][1]
    lines = carried_out(recipe, tmp_path / "run", material, lm)
    assert lines
    for variant, _ in recipe.variants():
        folder = tmp_path / "run" / variant
        tuned = load_model(str(folder / "model"))
        answer = Assistant(tuned).answer(parse_question(QUESTION))
        assert sum(answer.probabilities) == pytest.approx(1)
        assert json.loads((folder / "environment.json").read_text())["versions"]["trl"]
        assert json.loads((folder / "recipe.json").read_text())["name"] == name
        for number, stage in enumerate(recipe.stages, start=1):
            stage_folder = folder / f"{number}-{stage.kind}"
            if stage.kind == "evaluate":
                assert "before" in (stage_folder / "report.md").read_text()
                continue
            assert json.loads((stage_folder / "metrics.json").read_text())
            if stage.kind in ("sft", "dpo", "mcq"):
                logged = [json.loads(line) for line in (stage_folder / "trainer_log.jsonl").read_text().splitlines()]
                assert any("loss" in line for line in logged)
                assert (stage_folder / "curves.png").stat().st_size > 1000
        if any(stage.kind == "quantize" for stage in recipe.stages):
            assert tuned.quantization == next(stage.to for stage in recipe.stages if stage.kind == "quantize")


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, material: Path, lm: LanguageModel) -> None:
    recipe = load_recipe(Path("zephyr-7b"))
    recipe = recipe.model_copy(update={"stages": recipe.stages[:2]})
    whole = tmp_path / "whole" / "run"
    whole.parent.mkdir()
    carried_out(recipe, whole, material, lm)
    stopped = tmp_path / "stopped" / "run"
    stopped.parent.mkdir()
    model = tiny_model(recipe.architecture, stopped.parent / "tiny", lm.tokenizer)
    options = Options(data=material, model=str(model), tokenizer=str(model), max_steps=2)

    def stop(text: str) -> None:
        if text.startswith("reference"):
            raise KeyboardInterrupt  # in the second stage, before it trains

    with pytest.raises(KeyboardInterrupt):
        list(run(recipe, stopped, options, on_status=stop))
    with pytest.raises(UserError, match="already exists"):
        list(run(recipe, stopped, options))
    # As if the run had begun before recipes could say a weight decay: it was the default.
    state = json.loads((stopped / "run.json").read_text())
    for stage in state["settings"]["recipe"]["stages"]:
        del stage["fitting"]["weight_decay"]
    (stopped / "run.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="other settings .max_steps"):
        list(run(recipe, stopped, Options(data=material, model=str(model), tokenizer=str(model), max_steps=1, resume=True)))
    again = Options(data=material, model=str(model), tokenizer=str(model), max_steps=2, resume=True)
    assert "1-sft: done before" in list(run(recipe, stopped, again))

    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, stopped))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_missing_data_is_named_before_a_model_loads(tmp_path: Path, material: Path) -> None:
    some = tmp_path / "some"
    shutil.copytree(material, some)
    (some / "TruthfulQA.csv").unlink()
    with pytest.raises(UserError, match=r"recipe gpt2-124m: no .*TruthfulQA.csv.*it is published as sylinrl/TruthfulQA"):
        list(run(load_recipe(Path("gpt2-124m")), tmp_path / "run", Options(data=some, model=str(tmp_path / "no model"))))
    assert not (tmp_path / "run").exists()


def test_a_launch_of_two_processes_trains_the_same(tmp_path: Path, material: Path, lm: LanguageModel) -> None:
    """The recipe gpt2-124m, by one process with four rows a step and by two with two each."""
    model = tiny_model("gpt2", tmp_path / "tiny", lm.tokenizer)
    content = yaml.safe_load(located(Path("gpt2-124m")).read_text(encoding="utf-8"))
    del content["sweep"]
    content["stages"] = content["stages"][:1]
    fitting = content["stages"][0]["fitting"]
    fitting |= {"precision": "fp32", "warmup": 0, "learning_rate": 1e-3, "loggers": [], "accumulation": 4}
    content["stages"][0]["adapter"]["dropout"] = 0
    options = Options(data=material, model=str(model), tokenizer=str(model), max_steps=3)
    list(run(Recipe.model_validate(content), tmp_path / "one", options))

    fitting["accumulation"] = 2
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "training.cli", "run", str(recipe), "-o", str(tmp_path / "two"), "--data", str(material)]
    more = ["--model", str(model), "--tokenizer", str(model), "--max-steps", "3", "--launch", "cpu", "--processes", "2"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("held out: loss") == 1  # one process tells
    one, two = (load_file(tmp_path / name / "1-dpo" / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    assert any(tensor.abs().max() > 1e-4 for name, tensor in one.items() if "lora_B" in name)


def test_questions_that_were_trained_on_are_told(tmp_path: Path, material: Path, lm: LanguageModel) -> None:
    fitting = {"learning_rate": 1e-3, "loggers": []}
    asked = [{"file": "questions.jsonl"}]
    stages = [
        {"kind": "mcq", "data": asked, "passages": 0, "adapter": {"rank": 4}, "fitting": fitting},
        {"kind": "evaluate", "questions": asked, "passages": 0, "scoring": "cloze"},
    ]
    recipe = Recipe.model_validate({"name": "again", "model": "m", "architecture": "llama", "stages": stages})
    lines = carried_out(recipe, tmp_path / "run", material, lm)
    assert "warning: 8 of the 10 questions of questions.jsonl are trained on too: its results are too good" in lines
