"""Tuning really tunes: the right options gain, what should stay stays, and the assistant loads the result."""

import copy
import json
from pathlib import Path

import pytest
import torch

from assistant.answer import Assistant
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.prompt import render
from assistant.scoring import divisors, encode
from ingest.course import Course
from ingest.errors import UserError
from training.mcq import Example, evaluate, run_recipe, tune
from training.recipe import Recipe, Source, Tuning

MCQS = [
    MCQ(f"Which word goes with {word}?", (f"un{word}", word, f"{word}ness"), "B") for word in ("kind", "fair", "sad", "dark")
]


def examples(lm: LanguageModel) -> list[Example]:
    made = []
    for mcq in MCQS:
        prompt = render(mcq, [], "cloze")
        encoded = encode(lm, prompt)
        made.append(Example(encoded, divisors(prompt, encoded, "token"), 1))
    return made


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls_and_only_what_should_change_changes(lm: LanguageModel, method: str) -> None:
    model = copy.deepcopy(lm.model).float()
    tuned = LanguageModel("tuned", model, lm.tokenizer, lm.card)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train = examples(tuned)
    wrong = len(train) - evaluate(tuned, train)
    settings = Tuning(method=method, learning_rate=2e-3 if method == "lora" else 5e-5, epochs=6, accumulation=4)  # type: ignore[arg-type]
    losses = tune(tuned, train, settings, seed=0, on_step=lambda _: None)
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 2
    assert evaluate(tuned, train) == len(train)
    assert wrong > 0  # there was something to learn
    after = dict(tuned.model.named_parameters())
    assert after.keys() == before.keys()  # adapters are merged away
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed)
    if method == "lora":
        assert not any("norm" in name or "embed" in name for name in changed)


def test_a_recipe_makes_a_model_that_the_assistant_loads(lm: LanguageModel, operating_systems: Course, tmp_path: Path) -> None:
    questions = Path(__file__).resolve().parents[2] / "corpus" / "operating-systems" / "questions.jsonl"
    recipe = Recipe(
        name="small",
        model="smollm2-135m-instruct",
        data=(Source(questions=questions, course="operating-systems"),),
        passages=1,
        tuning=Tuning(method="full", learning_rate=2e-5, accumulation=2, max_steps=3),
    )
    metrics = run_recipe(recipe, tmp_path / "model")
    assert metrics["questions"] == {"trained": 20, "held_out": 5}
    assert len(metrics["losses"]) == 3
    assert json.loads((tmp_path / "model" / "metrics.json").read_text()) == metrics
    loaded = load_model(str(tmp_path / "model"))
    assert (loaded.card.scoring, loaded.card.normalization, loaded.card.passages) == ("cloze", "token", 1)
    answer = Assistant(loaded, operating_systems).answer(MCQS[0])
    assert sum(answer.probabilities) == pytest.approx(1)
    with pytest.raises(UserError, match="already exists"):
        run_recipe(recipe, tmp_path / "model")


def test_a_question_without_key_is_named_before_training(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text(
        '{"question": "Q?", "choices": ["x", "y"], "answer": "A"}\n{"question": "Q?", "choices": ["x", "y"]}\n'
    )
    recipe = Recipe(name="x", model="x", data=(Source(questions=questions),), tuning=Tuning(learning_rate=1e-5))
    with pytest.raises(UserError, match=r"q\.jsonl line 2: no key"):
        run_recipe(recipe, tmp_path / "out")
