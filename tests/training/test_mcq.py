"""Tuning really tunes: the right options gain, what should stay stays, and the assistant loads the result."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback

from assistant.answer import Assistant
from assistant.locate import EMBEDDED
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.prompt import render
from assistant.scoring import score
from ingest.course import Course
from ingest.errors import UserError
from training.examples import Example, examples, scores, tuned_card
from training.gather import Asked, questions, split_questions
from training.loop import Job
from training.mcq import run_mcq
from training.progress import watching
from training.recipe import Adapter, Fitting, MCQTuning, Questions, Recipe, Split
from training.run import check_data

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
WORDS = ("kind", "fair", "sad", "dark", "light", "soft", "hard", "cold", "warm", "deep", "fast", "slow")
MCQS = [
    MCQ(f"Which word goes with {word}?", tuple(f"{word}{ending}" for ending in endings), "ABC"[place % 3])
    for place, word in enumerate(WORDS)
    for endings in [[("ness", "", "like")[(place + shift) % 3] for shift in range(3)]]
]
ASKED = [Asked(f"words line {place}", mcq, fact=f"It is {mcq.question[21:-1]}.") for place, mcq in enumerate(MCQS)]
FITTING = {"learning_rate": 1e-2, "precision": "fp32", "loggers": ()}


def stage(fitting: dict[str, Any] | None = None, **more: Any) -> MCQTuning:
    """A stage on WORDS; `fitting` and `more` change it."""
    given = {"kind": "mcq", "data": (Questions(file=Path("words.jsonl")),), "fitting": Fitting(**FITTING | (fitting or {}))}
    return MCQTuning(**given | more)


@pytest.fixture(scope="module")
def tiny(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama of random weights and the embedded model's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(lm.tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tune(tiny: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Return a function that tunes the small model by a stage; it returns the metrics and the job's folder."""

    def run(by: MCQTuning, name: str = "job", **of_job: Any) -> tuple[dict[str, Any], Path]:
        given = of_job.pop("callbacks", ())
        job = Job(tmp_path / name, str(tiny), "llama", **of_job)
        job.folder.mkdir(exist_ok=True)
        found = examples(load_model(str(tiny), dtype="fp32"), by, ASKED)
        with watching(job) as callbacks:
            return run_mcq(
                by, job, found[:8], found[8:], [*callbacks, *given, Kept(job.folder / "kept.safetensors")]
            ), job.folder

    return run


class Kept(TrainerCallback):
    """Keeps what training ends with in single precision; the model that is saved has 16 bits."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, self.path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return what was trained, in single precision: the adapter, or all weights."""
    adapter = folder / "adapter" / "adapter_model.safetensors"
    return dict(load_file(adapter if adapter.is_file() else folder / "kept.safetensors"))


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "letter"},
        {"objective": "letter", "spelled": True},
        {"objective": "cloze", "normalization": "sum"},
        {"objective": "cloze", "normalization": "token"},
        {"objective": "cloze", "normalization": "byte", "lists_options": True},
        {"objective": "cloze", "normalization": "token", "turns_negation": True},
    ],
    ids=str,
)
def test_what_is_tuned_is_what_is_scored(tiny: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if changes.get("spelled"):  # as where a tokenizer has no token for a letter
        for module in ("assistant.scoring", "training.examples"):
            monkeypatch.setattr(f"{module}.encode_letters", lambda *_: None)
    by = stage(**{name: value for name, value in changes.items() if name != "spelled"})
    lm = load_model(str(tiny), dtype="fp32")
    solved = (MCQ("Which is first?", ("one", "two"), "A"),)
    denied = MCQ("Which of these is not a word?", ("kindness", "darklike", "fair"), "B")
    asked = [
        Asked(one.place, one.mcq, solved, fact=one.fact) for one in [*ASKED, Asked("line 1", denied, fact="Fair is a word.")]
    ]
    card = tuned_card(by, lm.card)
    prompts = [render(one.mcq, [one.fact or ""], by.objective, solved, card.template) for one in asked]
    assert ("A. kindness" in prompts[0].prefix) == (by.objective == "letter" or by.lists_options)
    assert [prompt.is_turned for prompt in prompts] == [False] * len(ASKED) + [by.turns_negation]
    lm.card = card
    expected = score(lm, prompts, by.objective, by.normalization)
    found = scores(lm, examples(lm, by, asked))
    assert all(of_one.requires_grad for of_one in found)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tolist() == pytest.approx(theirs.scores, abs=1e-4)


@pytest.mark.parametrize(
    "adapter",
    [
        None,
        Adapter(rank=4),
        Adapter(rank=4, method="dora"),
        pytest.param(Adapter(rank=4, base="nf4"), marks=needs_bitsandbytes),
        pytest.param(Adapter(rank=4, base="int8"), marks=needs_bitsandbytes),
    ],
    ids=lambda adapter: "full" if adapter is None else f"{adapter.method}-{adapter.base}",
)
@pytest.mark.filterwarnings("ignore:.*MatMul8bitLt.*:UserWarning")
def test_every_way_of_tuning_lowers_the_loss(tune: Any, tiny: Path, adapter: Adapter | None) -> None:
    by = stage({"epochs": 8, "batch_size": 8, "learning_rate": 2e-3 if adapter is None else 5e-3}, adapter=adapter)
    metrics, folder = tune(by)
    losses = [line["loss"] for line in log(folder) if "loss" in line]
    assert len(losses) == metrics["steps"] == 8
    assert losses[-1] < 0.8 * losses[0]
    before, after = (load_file(path / "model.safetensors") for path in (tiny, folder / "model"))
    assert before.keys() == after.keys()  # adapters are merged away
    changed = {name for name in before if (before[name].float() - after[name].float()).abs().max() > 1e-3}  # not by rounding
    assert any("q_proj" in name for name in changed)
    if adapter is not None:
        assert {name.split(".")[-1] for name in load_file(folder / "adapter" / "adapter_model.safetensors")} >= {"weight"}
    if adapter is not None and adapter.base == "none":
        assert not any("norm" in name or "embed" in name for name in changed)


def test_letters_are_learned_and_progress_is_told(tune: Any) -> None:
    told, steps = [], []
    by = stage({"epochs": 3, "batch_size": 2, "learning_rate": 5e-3}, objective="letter", adapter=Adapter(rank=4))
    metrics, folder = tune(by, on_status=told.append, on_step=steps.append)
    assert metrics["held_out"]["after"]["n"] == 4
    assert steps[-1].step == steps[-1].steps == 12
    held = [line["eval_loss"] for line in log(folder) if "eval_loss" in line]
    assert len(held) == 3
    assert metrics["held_out"]["after"]["loss"] == pytest.approx(held[-1], abs=1e-5)
    losses = [line["loss"] for line in log(folder) if "loss" in line]
    assert sum(losses[-4:]) < sum(losses[:4])
    card = load_model(str(folder / "model")).card
    assert card.scoring == "letter"
    assert "8 questions of words.jsonl" in card.training_data
    assert [(one.n, one.right) for one in card.accuracy] == [(4, metrics["held_out"]["after"]["right"])]


def same(one: Path, other: Path) -> None:
    """Assert that two runs logged the same and ended with the same weights."""
    for line, theirs in zip(log(one), log(other), strict=True):
        assert line == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for name, weight in weights(one).items():
        assert torch.allclose(weight, weights(other)[name], atol=1e-5), name


@pytest.mark.parametrize("changes", [{"batch_size": 2, "accumulation": 2}, {"batch_size": 1, "accumulation": 4}], ids=str)
def test_accumulated_batches_train_as_one(tune: Any, changes: dict[str, int]) -> None:
    learning = {"epochs": 3, "learning_rate": 2e-3}
    one = tune(stage(learning | {"batch_size": 4}, adapter=Adapter(rank=4)), "one")[1]
    checkpointed = {"gradient_checkpointing": changes["batch_size"] == 1}
    other = tune(stage(learning | changes | checkpointed, adapter=Adapter(rank=4)), "other")[1]
    same(one, other)


class Killed(TrainerCallback):
    """Ends training as a kill would, in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("adapter", [None, Adapter(rank=4, dropout=0.3)], ids=["full", "lora"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tune: Any, adapter: Adapter | None) -> None:
    by = stage(
        {"epochs": 2, "batch_size": 1, "accumulation": 2, "evaluate_every": 3, "best": "loss", "learning_rate": 3e-3},
        adapter=adapter,
    )
    metrics, whole = tune(by, "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(by, "stopped", callbacks=[Killed(5)])  # the last checkpoint is at step 3, in the middle of an epoch
    resumed, stopped = tune(by, "stopped", resume=True)
    same(whole, stopped)
    assert metrics | {"seconds": 0} == resumed | {"seconds": 0}


def test_two_processes_train_as_one_with_twice_the_accumulation(tune: Any, tiny: Path, tmp_path: Path) -> None:
    by = {"epochs": 2, "batch_size": 1, "learning_rate": 2e-3}
    metrics, one = tune(stage(by | {"accumulation": 4}, adapter=Adapter(rank=4)), "one")
    call = {
        "stage": stage(by | {"accumulation": 2}, adapter=Adapter(rank=4)).model_dump(mode="json"),
        "folder": str(tmp_path / "two"), "model": str(tiny), "held": 4,
        "asked": [(asked.place, asked.mcq.question, asked.mcq.options, asked.mcq.answer, asked.fact) for asked in ASKED],
    }  # fmt: skip
    script = Path(__file__).with_name("launched_mcq.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([*command, json.dumps(call)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    same(one, tmp_path / "two")
    of_two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert of_two["steps"] == metrics["steps"]
    assert of_two["held_out"]["after"]["loss"] == pytest.approx(metrics["held_out"]["after"]["loss"], abs=1e-4)


def test_training_ends_on_a_plateau_and_keeps_the_best(tune: Any) -> None:
    by = stage({"epochs": 20, "batch_size": 4, "evaluate_every": 1, "patience": 2, "best": "loss", "learning_rate": 0.3})
    metrics, folder = tune(by)
    held = [line["eval_loss"] for line in log(folder) if "eval_loss" in line]
    assert metrics["steps"] == len(held) < 40
    assert min(held) < held[-1]  # it got worse
    assert metrics["best"] == held.index(min(held)) + 1
    assert metrics["held_out"]["after"]["loss"] == pytest.approx(min(held), abs=1e-5)


def test_questions_that_are_too_long_lose_passages_or_are_left_out(lm: LanguageModel, operating_systems: Course) -> None:
    mcq = MCQ("What does a process that waits for a page do?", ("It sleeps", "It spins"), "A")
    asked = [
        Asked("short line 1", mcq, course="operating-systems"),
        Asked("long line 2", MCQ("why " * 300, ("a", "b"), "A"), course="operating-systems"),
    ]
    whole = examples(lm, stage({"max_length": 2000}, passages=3), asked[:1])
    assistant = Assistant(lm, operating_systems, scoring="cloze", passages=3)
    assert lm.tokenizer.decode(whole[0].encoded.prefix) == assistant.prepare(mcq)[1].prefix
    told: list[str] = []
    limit = whole[0].encoded.longest - 1
    shorter = examples(lm, stage({"max_length": limit}, passages=3), asked[:1], told.append)
    hits = assistant.shown(mcq)
    assert lm.tokenizer.decode(shorter[0].encoded.prefix) == assistant.prompt(mcq, hits[:2]).prefix
    assert told == [f"1 of 1 questions lost passages to stay within {limit} tokens"]
    told.clear()
    assert [one.place for one in examples(lm, stage({"max_length": 200}), asked, told.append)] == ["short line 1"]
    assert "1 of 2 questions are left out: alone they exceed 200 tokens (the first, long line 2)" in told


def test_held_out_questions_are_computed_as_training_ones(tiny: Path) -> None:
    lm = load_model(str(tiny), dtype="fp32")
    found = examples(lm, stage(), ASKED)
    scores(lm, found)  # packing is tried once, in single precision
    seen: set[tuple[bool, torch.dtype]] = set()
    layer = lm.model.model.layers[0].self_attn.q_proj
    layer.register_forward_hook(lambda _module, _input, output: seen.add((torch.is_grad_enabled(), output.dtype)))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # so that rows are read in threads, which begin without autocast
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores(lm, found)
            with torch.no_grad():
                scores(lm, found)
    finally:
        torch.set_num_threads(threads)
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}


def write(path: Path, rows: list[dict[str, Any]]) -> Recipe:
    """Write rows to a file; returns a recipe that tunes on their facts."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by = stage(data=(Questions(file=path, fact=True),))
    return Recipe(name="x", model="x", architecture="llama", stages=(by,))


def test_rows_without_a_key_or_a_fact_are_refused_by_file_and_line(tmp_path: Path) -> None:
    whole = {"question": {"stem": "Q?", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]}}
    whole |= {"answerKey": "A", "fact1": " Facts are facts. "}
    path = tmp_path / "q.jsonl"

    def gathered(*rows: dict[str, Any]) -> list[Asked]:
        recipe = write(path, list(rows))
        return questions(recipe, recipe.stages[0].data, None)  # type: ignore[union-attr]

    assert [(one.place, one.fact) for one in gathered(whole)] == [(f"{path} line 1", "Facts are facts.")]
    with pytest.raises(UserError, match=r"q\.jsonl line 2 and 1 more: no key"):
        gathered(whole, whole | {"answerKey": None}, whole | {"answerKey": None})
    with pytest.raises(UserError, match=r"q\.jsonl line 2: no 'fact1'"):
        gathered(whole, {name: value for name, value in whole.items() if name != "fact1"})


def test_no_question_stands_on_both_sides_of_a_split() -> None:
    asked = [
        Asked(f"{number} {form}", MCQ(form.format(number), ("x", "y"), "A"))
        for number in range(30)
        for form in ("What is {}?", "what  is {}", "WHAT IS {} !")
    ]
    for seed in range(3):
        train, held = split_questions(asked, Split(parts=(70, 30)), seed)
        sides = [{one.place.split()[0] for one in part} for part in (train, held)]
        assert not sides[0] & sides[1]
        assert len(train) + len(held) == 90
        assert len(held) == pytest.approx(27, abs=3)


def test_questions_of_their_own_are_held_out_and_not_trained_on(tmp_path: Path) -> None:
    def row(question: str) -> dict[str, Any]:
        return {"question": question, "choices": ["x", "y"], "answer": "A"}

    for name, rows in {
        "a.jsonl": [row("What is 1?"), row("What is 2?")],
        "b.jsonl": [row("what is  1 ?"), row("Who?")],
    }.items():
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
    by = stage(data=(Questions(file=tmp_path / "a.jsonl"),), held=(Questions(file=tmp_path / "b.jsonl"),))
    told = check_data(Recipe(name="x", model="x", architecture="llama", stages=(by,)), None)
    assert "1 rows to train on, 2 held out" in told[0]
    assert "left out: 1 questions that are held out as well" in told[1]


def test_questions_are_made_of_a_course_s_pages(operating_systems: Course) -> None:
    wanted = Questions(quiz=("gap",), course=operating_systems.name, use=5)
    recipe = Recipe(name="x", model="x", architecture="llama", stages=(stage(data=(wanted,)),))
    found = questions(recipe, [wanted], None)
    assert len(found) == 5
    assert {one.course for one in found} == {operating_systems.name}
    assert all(one.mcq.answer and "_____" in one.mcq.question for one in found)


def test_a_question_made_of_a_course_s_text_is_shown_other_passages(operating_systems: Course, tiny: Path) -> None:
    lm = load_model(str(tiny))
    by = stage(passages=2)
    wanted = Questions(quiz=("gap",), course=operating_systems.name, use=8)
    made = questions(Recipe(name="x", model="x", architecture="llama", stages=(by,)), [wanted], None)

    def read(asked: Sequence[Asked]) -> list[str]:
        return [lm.tokenizer.decode(example.encoded.prefix) for example in examples(lm, by, asked)]

    def has(prompt: str, one: Asked) -> bool:
        assert one.made_of is not None
        return one.made_of in prompt

    others = 0
    for one, hidden, plain in zip(made, read(made), read([replace(one, made_of=None) for one in made]), strict=True):
        assert has(plain, one)  # the search finds it
        assert not has(hidden, one)
        others += len(hidden) > len(one.mcq.question) + 200
    assert others >= len(made) / 2  # where the course says more about it


def test_what_cannot_be_tuned_is_refused(tiny: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, str(tiny), "llama")
    found = [Example("x", None, 0, (1, 1))]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="pmi is for scoring"):
        run_mcq(stage(normalization="pmi"), job, found, found)
    with pytest.raises(UserError, match="0 held out are too few"):
        run_mcq(stage(), job, found, [])


def test_the_embedded_model_learns_a_sample_course_s_questions_and_answers_with_its_card(
    operating_systems: Course, tmp_path: Path
) -> None:
    lm = load_model(EMBEDDED)
    by = stage({"learning_rate": 3e-4, "max_steps": 30, "epochs": 2, "precision": "auto"}, adapter=Adapter(rank=8), passages=1)
    file = CORPUS / "operating-systems" / "questions.jsonl"
    recipe = Recipe(name="x", model="x", architecture="llama", stages=(by,))
    asked = questions(recipe, [Questions(file=file, course="operating-systems")], None)
    found = examples(lm, by, asked)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    job = Job(tmp_path, EMBEDDED, "llama")
    with watching(job) as callbacks:
        metrics = run_mcq(by, job, found[:15], found[15:], callbacks)
    assert all(torch.equal(before[name], parameter) for name, parameter in lm.model.named_parameters())
    losses = [line["loss"] for line in log(tmp_path) if "loss" in line]
    assert len(losses) == 30
    assert sum(losses[15:]) < sum(losses[:15])  # the same questions, the second time
    assert metrics["held_out"]["after"]["right"] >= metrics["held_out"]["before"]["right"]
    moved = [
        tensor for name, tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items() if "lora_B" in name
    ]
    assert moved
    assert all(tensor.abs().max() > 0 for tensor in moved)
    loaded = load_model(str(tmp_path / "model"))
    assert (loaded.card.scoring, loaded.card.normalization, loaded.card.passages) == ("cloze", "token", 1)
    tuned = dict(loaded.model.named_parameters())
    for name, parameter in lm.model.named_parameters():  # the adapter's layers changed, and no others
        assert torch.equal(parameter, tuned[name].to(parameter.dtype)) != name.endswith("_proj.weight"), name
    answers = Assistant(loaded, operating_systems).answer_many([one.mcq for one in asked[15:]])
    right = sum(answer.letter == one.mcq.answer for answer, one in zip(answers, asked[15:], strict=True))  # type: ignore[union-attr]
    assert abs(right - metrics["held_out"]["after"]["right"]) <= 1  # 16 bits may turn one that is close
