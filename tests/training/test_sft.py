"""Supervised tuning learns the answers, of the answers only, and saves what it learned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model

from assistant.locate import fingerprint
from assistant.model import LanguageModel, load_model
from ingest.errors import UserError
from training.instructions import Instruction
from training.loop import Job
from training.pairs import Message
from training.recipe import SFT, Adapter, File, Fitting
from training.rows import answer_rows
from training.sft import run_sft

ROWS = [
    Instruction((Message("user", f"How many {word} are there?"),), f"There are {number}.", "rows.jsonl", number)
    for number, word in enumerate(
        ["rivers", "stones", "clouds", "engines", "windows", "gardens", "violins", "ladders"], start=1
    )
]


def settings(adapter: Adapter | None, **fitting: Any) -> SFT:
    values: dict[str, Any] = {
        "learning_rate": 1e-2, "max_steps": 4, "batch_size": 2, "accumulation": 1, "precision": "fp32", "max_length": 128,
        "loggers": (),
    }  # fmt: skip
    return SFT(kind="sft", data=(File(file=Path("rows.jsonl")),), fitting=Fitting(**(values | fitting)), adapter=adapter)


@pytest.fixture(scope="module")
def tiny(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama", lm.tokenizer)


def answers_loss(folder: Path, rows: list[Instruction]) -> float:
    """Return the mean cross-entropy of the answers' tokens, computed row by row from plain logits, in nats."""
    lm = load_model(str(folder), dtype="fp32")
    total, count = 0.0, 0
    for row in answer_rows([(row.prompt, row.answer, row.place) for row in rows], lm.tokenizer, "chat", 128).encoded:
        ids = torch.tensor([row.prefix + row.continuations[0]])
        with torch.inference_mode():
            logs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(len(row.prefix), ids.shape[1]):
            total -= float(logs[place - 1, ids[0, place]])
            count += 1
    return total / count


def test_the_loss_is_that_of_the_answers_tokens(tiny: Path, tmp_path: Path) -> None:
    # Nothing is learned at this rate, so both losses are the untrained model's.
    stage = settings(None, learning_rate=1e-9, batch_size=4, max_steps=2)
    metrics = run_sft(stage, Job(tmp_path / "job", str(tiny), "llama"), ROWS, ROWS[:4])
    assert metrics["held_out"]["loss"] == pytest.approx(answers_loss(tiny, ROWS[:4]), abs=1e-4)
    # A step's loss is the mean over the tokens of its batch.
    assert metrics["loss"] == pytest.approx(answers_loss(tiny, ROWS), abs=2e-2)


@pytest.mark.parametrize("adapter", [None, Adapter(rank=8)])
def test_answers_become_likelier_and_what_was_learned_is_saved(tiny: Path, tmp_path: Path, adapter: Adapter | None) -> None:
    job = Job(tmp_path / "job", str(tiny), "llama")
    metrics = run_sft(settings(adapter, max_steps=12), job, ROWS, ROWS[:2])
    before, after = answers_loss(tiny, ROWS), answers_loss(job.model_folder, ROWS)
    assert after < before - 0.5
    assert metrics["held_out"]["loss"] == pytest.approx(answers_loss(job.model_folder, ROWS[:2]), abs=2e-2)
    assert metrics["rows"]["train"] == {"rows": 8, "cut": 0, "left_out": {}}
    assert json.loads((job.folder / "metrics.json").read_text())["steps"] == 12
    assert (job.folder / "adapter").exists() == (adapter is not None)
    if adapter is not None:
        assert fingerprint(tiny) in (job.folder / "adapter" / "mcqa.json").read_text()
        learned = load_file(job.folder / "adapter" / "adapter_model.safetensors")
        assert all(float(weight.abs().max()) > 0 for weight in learned.values())


def test_empty_answers_are_refused_by_name_and_long_prompts_counted(tiny: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", str(tiny), "llama")
    empty = Instruction((Message("user", "Why?"),), " ", "rows.jsonl", 9)
    with pytest.raises(UserError, match="rows.jsonl row 9: the answer is empty"):
        run_sft(settings(None), job, [*ROWS, empty], [])
    with pytest.raises(UserError, match="no row is left to train on .8 left out: the prompt fills max_length"):
        run_sft(settings(None, max_length=8), job, ROWS, [])
