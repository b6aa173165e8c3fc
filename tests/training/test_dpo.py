"""Preference tuning does what plain TRL does, faster: the same losses and weights, and everything around them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model

import training.dpo
import training.loop
import training.reference
from assistant.card import read_card
from assistant.locate import fingerprint
from assistant.model import LanguageModel, load_model
from ingest.errors import UserError
from training.dpo import dpo_trainer, run_dpo
from training.loop import Job, adapter_config, finish, fit, known_warnings
from training.pairs import Message, Pair
from training.recipe import DPO, Adapter, File, Fitting
from training.reference import references
from training.rows import pair_rows

WORDS = ["river", "stone", "cloud", "engine", "copper", "window", "garden", "violin", "ladder", "anchor", "basket", "candle"]
LORA = Adapter(rank=4, alpha=16)


def pair(number: int, longer: int = 0) -> Pair:
    """Return a pair about some words; prompts and answers are of different lengths."""
    word = [WORDS[(number * 5 + step * 3) % len(WORDS)] for step in range(8 + longer)]
    prompt = (Message("user", f"What has {word[0]} to do with {' and '.join(word[1 : 2 + number % 4])}?"),)
    return Pair(prompt, f"The {word[2]} is {' '.join(word[4 : 6 + longer])}.", f"It is a {word[3]}.", "made.jsonl", number + 1)


PAIRS = [pair(number) for number in range(12)]


def settings(adapter: Adapter | None = LORA, loss: Any = "sigmoid", **fitting: Any) -> DPO:
    values: dict[str, Any] = {
        "learning_rate": 1e-2, "max_steps": 3, "batch_size": 2, "accumulation": 2, "precision": "fp32", "max_length": 256,
        "loggers": (),
    }  # fmt: skip
    smoothing = 0.1 if loss == "robust" else 0.0
    return DPO(
        kind="dpo", data=(File(file=Path("made.jsonl")),), fitting=Fitting(**(values | fitting)), adapter=adapter, loss=loss,
        label_smoothing=smoothing,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a tiny model of an architecture, the same at every call."""
    made: dict[str, Path] = {}

    def folder(architecture: str = "llama") -> Path:
        if architecture not in made:
            made[architecture] = tiny_model(architecture, tmp_path_factory.mktemp("tiny") / architecture, lm.tokenizer)
        return made[architecture]

    return folder


@pytest.fixture
def job(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes a job on a tiny model."""

    def make(name: str = "job", architecture: Any = "llama", **more: Any) -> Job:
        return Job(tmp_path / name, str(tiny(architecture)), architecture, **more)

    return make


def plain_trl(stage: DPO, job: Job, pairs: list[Pair]) -> Any:
    """Return TRL's own trainer on the same rows and settings, with its own forward passes and reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    lm = load_model(job.model, dtype="fp32")
    rows = pair_rows(pairs, lm.tokenizer, job.format, stage.fitting.max_length).encoded
    fitting = stage.fitting
    arguments = DPOConfig(
        str(job.folder / "plain"), per_device_train_batch_size=fitting.batch_size, max_steps=fitting.max_steps or -1,
        gradient_accumulation_steps=fitting.accumulation, learning_rate=fitting.learning_rate, beta=stage.beta,
        loss_type=[stage.loss], label_smoothing=stage.label_smoothing, logging_steps=1, use_cpu=True, bf16=False,
        activation_checkpointing=False, save_strategy="no", report_to=[], seed=job.seed, data_seed=job.seed, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    data = Dataset.from_dict(
        {
            "prompt_ids": [row.prefix for row in rows],
            "chosen_ids": [row.continuations[0] for row in rows],
            "rejected_ids": [row.continuations[1] for row in rows],
        }
    )
    config = None if stage.adapter is None else adapter_config(lm.model, stage.adapter, job.architecture)
    with known_warnings():
        trainer = OnTokens(lm.model, args=arguments, train_dataset=data, processing_class=lm.tokenizer, peft_config=config)
        trainer.train()
    return trainer


def trained(stage: DPO, job: Job, pairs: list[Pair] = PAIRS, held: list[Pair] | None = None) -> Any:
    trainer, _, _ = dpo_trainer(stage, job, pairs, held or [])
    fit(trainer, job)
    return trainer


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


NAMES = [
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
]


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    """Assert that two trainers logged the same at every step, and ended with the same weights."""
    for name in NAMES:
        # Before the first step, all rewards are 0 to rounding, and which of two is larger means nothing.
        since = 1 if name == "rewards/accuracies" else 0
        assert logged(ours, name)[since:] == pytest.approx(logged(theirs, name)[since:], rel=tolerance, abs=tolerance), name
        assert len(logged(ours, name)) == ours.state.global_step > 1
    weights = dict(theirs.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "robust"])
def test_every_loss_is_that_of_plain_trl_at_every_step(job: Callable[..., Job], loss: str) -> None:
    stage = settings(loss=loss)
    ours = trained(stage, job())
    assert ours._packs
    assert_same(ours, plain_trl(stage, job(), PAIRS))


@pytest.mark.parametrize(
    ("architecture", "adapter"), [("llama", None), ("gpt2", LORA), ("llama", Adapter(rank=4, method="dora"))]
)
def test_full_tuning_and_other_architectures_and_adapters_are_trained_as_by_trl(
    job: Callable[..., Job], architecture: str, adapter: Adapter | None
) -> None:
    stage = settings(adapter, learning_rate=1e-3)
    ours = trained(stage, job(architecture=architecture))
    assert ours._packs
    theirs = plain_trl(stage, job(architecture=architecture), PAIRS)
    assert_same(ours, theirs, 2e-4)


def test_a_model_that_cannot_read_packed_rows_is_trained_the_same(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = trained(settings(), job("packed"))
    monkeypatch.setattr(training.dpo, "packing_works", lambda _: False)
    alone = trained(settings(), job("alone"))
    assert packed._packs
    assert not alone._packs
    assert_same(packed, alone)
    assert logged(alone, "entropy")
    assert not logged(packed, "entropy")  # which it does not compute


def test_gradient_checkpointing_changes_nothing(job: Callable[..., Job]) -> None:
    stage = settings(gradient_checkpointing=True, max_steps=2)
    recomputing = trained(stage, job("recomputing"))
    assert recomputing.args.activation_checkpointing
    assert_same(recomputing, trained(settings(max_steps=2), job("keeping")))


def test_adapters_change_and_the_base_does_not_and_both_are_saved(job: Callable[..., Job], home: Path) -> None:
    held = [pair(20), pair(21)]
    metrics = run_dpo(settings(), job(), PAIRS, held)
    folder, base = job().folder, Path(job().model)
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(float(weight.abs().max()) > 0 for name, weight in weights.items() if "lora_B" in name)
    assert any("lora_B" in name for name in weights)
    card = read_card(folder / "adapter" / "mcqa.json")
    assert (card.base, card.base_sha256) == (str(base), fingerprint(base))
    assert read_card(folder / "model" / "mcqa.json").base == ""
    # The whole model is the base with the adapter merged into it, as the assistant merges one itself.
    whole = load_model(str(folder / "model"), dtype="fp32").model.state_dict()
    merged = load_model(str(folder / "adapter"), dtype="fp32").model.state_dict()
    before = load_model(str(base), dtype="fp32").model.state_dict()
    for name, weight in whole.items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-3, atol=1e-4)
        assert torch.allclose(weight, before[name], atol=1e-4) != name.endswith("proj.weight")
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["steps"] == 3
    assert metrics["pairs"]["train"]["rows"] == 12
    assert metrics["train"]["rewards/margins"] > 0 == metrics["pairs"]["held_out"]["cut"]
    assert set(metrics["held_out"]) >= {"loss", "rewards/margins", "rewards/accuracies"}


@pytest.mark.parametrize("adapter", [LORA, None])
def test_weights_that_no_process_has_all_of_are_put_together(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, adapter: Adapter | None
) -> None:
    run_dpo(settings(adapter), job("one"), PAIRS, [])
    monkeypatch.setattr(training.loop, "_is_cut_up", lambda _: True)
    run_dpo(settings(adapter), job("several"), PAIRS, [])
    one, several = (load_file(job(name).model_folder / "model.safetensors") for name in ("one", "several"))
    assert one.keys() == several.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, several[name])


@pytest.mark.parametrize(("base", "method"), [("nf4", "lora"), ("nf4", "dora"), ("int8", "lora")])
def test_adapters_on_a_quantized_base_learn_in_single_precision(job: Callable[..., Job], base: Any, method: Any) -> None:
    pytest.importorskip("bitsandbytes")
    trainer, lm, _ = dpo_trainer(settings(Adapter(rank=4, base=base, method=method), max_steps=6), job(), PAIRS, [])
    assert lm.quantization == base
    learns = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in learns.values()} == {torch.float32}
    frozen = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if name not in learns}
    fit(trainer, job())
    # Before the first step, the policy is the reference: nothing is gained yet, and nothing lost.
    assert logged(trainer, "loss")[0] == pytest.approx(0.6931, abs=2e-3)
    assert logged(trainer, "loss")[-1] < 0.6
    for name, weight in trainer.model.named_parameters():
        if name in frozen:
            assert torch.equal(weight, frozen[name]), name
    # The whole model in 16 bits says what the adapter on the quantized base said.
    ids = torch.tensor([lm.tokenizer("What has river to do with stone?").input_ids])
    with torch.inference_mode():
        before = trainer.model.eval()(input_ids=ids).logits
        finish(job(), lm, trainer.model)
        after = load_model(str(job().model_folder), dtype="fp32").model(input_ids=ids).logits
    assert float((before - after).abs().mean()) < 0.05 * float(before.std())


@pytest.mark.parametrize("adapter", [LORA, None])
def test_in_16_bits_nothing_is_gained_before_the_first_step(job: Callable[..., Job], adapter: Adapter | None) -> None:
    trainer, _, _ = dpo_trainer(settings(adapter, precision="bf16", max_steps=2), job(), PAIRS, PAIRS[:3])
    before = trainer.evaluate()
    assert before["eval_rewards/margins"] == pytest.approx(0, abs=1e-5)
    fit(trainer, job())
    assert logged(trainer, "loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert logged(trainer, "loss")[1] < 0.69


def test_dropout_is_the_adapters_alone(job: Callable[..., Job]) -> None:
    def losses(dropout: float) -> list[float]:
        # GPT-2's own dropout is 0.1 everywhere.
        trainer, _, _ = dpo_trainer(settings(Adapter(rank=4, dropout=dropout)), job(architecture="gpt2"), PAIRS, [])
        trainer.model.train()
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        return [trainer.compute_loss(trainer.model, batch).item() for _ in range(2)]

    with_dropout, without = losses(0.3), losses(0.0)
    assert without[0] == without[1]
    assert with_dropout[0] != with_dropout[1]


def test_references_are_kept_for_the_same_rows_and_weights_only(
    tiny: Callable[[str], Path], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def known(folder: Path, pairs: list[Pair], number: torch.dtype = torch.float32) -> Any:
        model = load_model(str(folder), dtype="fp32")
        return references(model, pair_rows(pairs, model.tokenizer, "chat", 256).encoded, number)

    first = known(tiny("llama"), PAIRS)
    assert not first.reused
    assert first.logps.shape == (12, 2)
    assert (first.logps < 0).all()
    other = tmp_path / "other"
    model = load_model(str(tiny("llama")), dtype="fp32")
    model.model.lm_head.weight.data[0, 0] += 1
    model.model.save_pretrained(other)
    model.tokenizer.save_pretrained(other)
    assert not known(other, PAIRS).reused
    assert not known(tiny("llama"), [*PAIRS[:-1], pair(30)]).reused
    assert not known(tiny("llama"), PAIRS, torch.bfloat16).reused

    def fail(*_: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(training.reference, "_compute", fail)
    again = known(tiny("llama"), PAIRS)
    assert again.reused
    assert (again.logps == first.logps).all()


class KilledError(Exception):
    """What stands for a kill."""


def test_a_run_that_was_killed_goes_on_to_the_same_result(job: Callable[..., Job]) -> None:
    from transformers import TrainerCallback

    class Kill(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step == 3:
                raise KilledError

    stage = settings(Adapter(rank=4, dropout=0.1), max_steps=5, evaluate_every=2, accumulation=1)
    run_dpo(stage, job("whole"), PAIRS, [pair(20)])
    with pytest.raises(KilledError):
        run_dpo(stage, job("killed"), PAIRS, [pair(20)], [Kill()])
    assert not job("killed").model_folder.exists()
    metrics = run_dpo(stage, job("killed", resume=True), PAIRS, [pair(20)])
    assert metrics["steps"] == 5
    assert metrics["reference"]["reused"]
    one, other = (load_file(job(name).folder / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=1e-5)


def test_training_stops_on_a_plateau_and_keeps_the_best_weights(job: Callable[..., Job]) -> None:
    # Steps this large make the held-out loss worse sooner or later.
    stage = settings(learning_rate=0.5, max_steps=30, evaluate_every=1, patience=2, best="loss", accumulation=1)
    trainer, _, _ = dpo_trainer(stage, job(), PAIRS[:6], [pair(20), pair(21)])
    measured = fit(trainer, job())
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert measured["steps"] == best + 2 < 30
    assert measured["best"] == best
    kept = load_file(job().folder / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors")
    now = {name.replace(".default", ""): weight for name, weight in trainer.model.named_parameters()}
    for name, weight in kept.items():
        torch.testing.assert_close(weight, now[name])


def test_long_rows_are_cut_or_left_out_and_counted(lm: LanguageModel) -> None:
    pairs = [pair(1), pair(2, longer=40), Pair((Message("user", "word " * 80),), "Yes.", "No.", "made.jsonl", 3)]
    rows = pair_rows(pairs, lm.tokenizer, "chat", 70)
    assert (len(rows.encoded), rows.cut) == (2, 1)
    assert max(row.longest for row in rows.encoded) == 70
    assert rows.left_out == {"the prompt fills max_length": 1}
    alike = Pair((Message("user", "Why?"),), f"{'so ' * 90}yes", f"{'so ' * 90}no", "made.jsonl", 4)
    assert pair_rows([alike], lm.tokenizer, "chat", 70).left_out == {"the answers are the same up to max_length": 1}


def test_rows_begin_with_what_both_answers_share_and_say_the_same_text(lm: LanguageModel) -> None:
    row = pair_rows([pair(1)], lm.tokenizer, "chat", 256).encoded[0]
    texts = [lm.tokenizer.decode(row.prefix + answer) for answer in row.continuations]
    asked = f"<|im_start|>user\n{pair(1).prompt[0].content}<|im_end|>\n<|im_start|>assistant\n"
    assert [text.split(asked)[1] for text in texts] == [f"{pair(1).chosen}<|im_end|>", f"{pair(1).rejected}<|im_end|>"]
    assert lm.tokenizer.decode(row.prefix).endswith(asked)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Pair((Message("user", "Why?"),), " ", "No.", "labels.json", 7), "labels.json row 7: the chosen answer is empty"),
        (Pair((Message("user", "Why?"),), "Yes.", "", "labels.json", 8), "labels.json row 8: the rejected answer is empty"),
        (Pair((Message("user", "Why?"),), "Yes.", "Yes.", "labels.json", 9), "labels.json row 9: both answers are the same"),
    ],
)
def test_pairs_that_teach_nothing_are_refused_by_name(lm: LanguageModel, bad: Pair, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pair_rows([pair(1), bad], lm.tokenizer, "chat", 256)


def test_nothing_left_to_train_on_says_why(job: Callable[..., Job]) -> None:
    with pytest.raises(UserError, match="no pair is left to train on .12 left out: the prompt fills max_length"):
        run_dpo(settings(max_length=8), job(), PAIRS, [])
    with pytest.raises(UserError, match="no held-out rows are left to find the best margin on"):
        run_dpo(settings(best="margin"), job(), PAIRS, [])


def test_a_target_that_the_model_lacks_is_refused(job: Callable[..., Job]) -> None:
    with pytest.raises(UserError, match="no layer nowhere for the adapter; its layers are .*q_proj"):
        run_dpo(settings(Adapter(targets=("q_proj", "nowhere"))), job(), PAIRS, [])
