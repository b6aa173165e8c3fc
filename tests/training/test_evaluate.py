"""Evaluation: every figure as a straightforward computation gives it, and what cannot be evaluated is named."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from assistant.answer import Assistant
from assistant.items import read_items
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.prompt import render
from assistant.scoring import score
from ingest.errors import UserError
from training import cli_evaluate
from training.bootstrap import mean, of_sums
from training.evaluate import Report, Variant, evaluate
from training.pairs import Message, Pair
from training.recipe import Evaluation, File, Questions
from training.responses import drawn, read_responses

app = typer.Typer()
app.command("x")(cli_evaluate.evaluate)
app.command("y")(lambda: None)  # with one command alone, typer takes no name

ANSWERS = [
    ("Why is the sky blue?", "Air scatters blue light most.", "It just is, and I do not want to say why."),
    ("Why is the sky blue?", "Because short waves are scattered.", "Magic."),
    ("Name a metal.", "Iron is one.", "Wood, I think; or perhaps water, who knows."),
    ("What is 2 + 2?", "4", "5"),
    ("Who wrote Faust?", "Goethe wrote it.", "Nobody did."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes.", "Break it."),
]
PAIRS = [Pair((Message("user", prompt),), good, bad, "pairs", line) for line, (prompt, good, bad) in enumerate(ANSWERS, 1)]
TRUTHS = """Type,Question,Best Answer,Source
a,What is the sun?,A star,x
a,Do fish sleep?,"Yes, many do",y
a,What is ice?,Frozen water,z
"""
QUESTIONS = [
    {"question": "What do plants take in?", "choices": ["Oxygen", "Carbon dioxide", "Iron"], "answer": "B"},
    {"question": "What is frozen water called?", "choices": ["Steam", "Fog", "Ice", "Rain"], "answer": "C"},
    {"question": "What carries blood to the heart?", "choices": ["Veins", "Arteries"], "answer": "A"},
]
BETA = 0.25


@pytest.fixture(scope="module")
def folders(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two small models with the embedded one's tokenizer: one of random weights, and the same after some change."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(lm.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    found = []
    for name in ("base", "tuned"):
        folder = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        found.append(folder)
        for weight in model.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
    return found[0], found[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "truths.csv").write_text(TRUTHS, encoding="utf-8")
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS), encoding="utf-8")
    rows = [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt, good, bad in ANSWERS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path], files: Path) -> Report:
    variants = [Variant(folder.name, str(folder), dtype="fp32") for folder in folders]
    wanted = Evaluation(
        kind="evaluate",
        questions=(Questions(file=files / "questions.jsonl"),),
        scoring="cloze",
        responses=(File(file=files / "truths.csv"), File(file=files / "pairs.jsonl")),
    )
    return evaluate(variants, wanted, pairs=PAIRS, beta=BETA)


def reading(folder: Path, lm: LanguageModel, prompt: str, answer: str) -> torch.Tensor:
    """Return the log-probability of each token of an answer, its text read alone and as the template writes it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = lm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    before = lm.tokenizer(asked, add_special_tokens=False).input_ids
    after = lm.tokenizer(answer + "<|im_end|>", add_special_tokens=False).input_ids
    ids = torch.tensor([before + after])
    with torch.inference_mode():
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
    return torch.stack([logs[len(before) + place - 1, id_] for place, id_ in enumerate(after)])


def test_likelihoods_and_rewards_are_those_of_each_text_read_alone(
    folders: tuple[Path, Path], lm: LanguageModel, found: Report
) -> None:
    logs = [[[reading(folder, lm, prompt, text) for text in texts] for prompt, *texts in ANSWERS] for folder in folders]
    base, tuned = ([[float(text.sum()) for text in pair] for pair in of_model] for of_model in logs)
    figures = found.preferences
    assert figures is not None
    assert (figures.n, figures.prompts, figures.left_out) == (6, 5, 0)
    for one, own, sums in zip(figures.models, logs, (base, tuned), strict=True):
        assert one.likelihood.right == sum(good > bad for good, bad in sums)
        assert one.per_token.right == sum(float(good.mean()) > float(bad.mean()) for good, bad in own)
        assert one.chosen.value == pytest.approx(np.mean([good for good, _ in sums]), abs=1e-3)
        assert one.rejected.value == pytest.approx(np.mean([bad for _, bad in sums]), abs=1e-3)
        assert one.margin.value == pytest.approx(np.mean([good - bad for good, bad in sums]), abs=1e-3)
    margins = [BETA * ((t[0] - b[0]) - (t[1] - b[1])) for b, t in zip(base, tuned, strict=True)]
    rewards = figures.models[1].rewards
    assert rewards is not None
    assert rewards.accuracy.right == sum(margin > 0 for margin in margins)
    assert 0 < rewards.accuracy.right < 6  # else the test could not tell the sides apart
    assert rewards.margin.value == pytest.approx(np.mean(margins), abs=1e-3)
    assert rewards.margin.value == pytest.approx(rewards.chosen.value - rewards.rejected.value, abs=1e-6)
    assert rewards.margin.low < rewards.margin.value < rewards.margin.high
    assert figures.models[0].rewards is None
    # Against the base's own ranking, pair by pair.
    against = rewards.accuracy.against
    assert against is not None
    right, before = [margin > 0 for margin in margins], [good > bad for good, bad in base]
    assert against.gained == sum(now and not then for now, then in zip(right, before, strict=True))
    assert against.lost == sum(then and not now for now, then in zip(right, before, strict=True))
    moved = against.gained + against.lost
    tail = sum(math.comb(moved, k) for k in range(min(against.gained, against.lost) + 1)) / 2**moved
    assert against.p == pytest.approx(min(1.0, 2 * tail))


def test_cross_entropy_is_the_mean_over_all_tokens(folders: tuple[Path, Path], lm: LanguageModel, found: Report) -> None:
    truths = [("What is the sun?", "A star"), ("Do fish sleep?", "Yes, many do"), ("What is ice?", "Frozen water")]
    for of_file, texts in zip(found.responses, (truths, [(prompt, good) for prompt, good, _ in ANSWERS]), strict=True):
        entropies = []
        for folder, one in zip(folders, of_file.models, strict=True):
            logs = torch.cat([reading(folder, lm, *text) for text in texts])
            assert one.tokens == len(logs)
            assert one.cross_entropy.value == pytest.approx(-float(logs.mean()), abs=1e-4)
            assert one.perplexity.value == pytest.approx(math.exp(-float(logs.mean())), rel=1e-4)
            entropies.append(-float(logs.mean()))
        difference = of_file.models[1].difference
        assert difference is not None
        assert difference.value == pytest.approx(entropies[1] - entropies[0], abs=1e-4)
        assert difference.low <= difference.value <= difference.high
        assert of_file.models[0].difference is None


def test_questions_are_answered_as_the_assistant_answers_them(folders: tuple[Path, Path], files: Path, found: Report) -> None:
    items = read_items(files / "questions.jsonl").items
    (asked,) = found.questions
    for folder, summary in zip(folders, asked.summaries, strict=True):
        assistant = Assistant(load_model(str(folder), dtype="fp32"), scoring="cloze")
        letters = [assistant.answer(item.mcq).letter for item in items]
        assert [outcome.letter for outcome in summary.result.outcomes] == letters
        assert summary.correct == sum(letter == item.key for letter, item in zip(letters, items, strict=True))


def test_questions_with_facts_are_asked_with_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    facts = ["Plants take in carbon dioxide.", "Ice is frozen water.", "Veins lead to the heart."]
    rows = [one | {"fact1": fact} for one, fact in zip(QUESTIONS, facts, strict=True)]
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = Evaluation(kind="evaluate", questions=(Questions(file=file, fact=True),), scoring="cloze")
    report = evaluate([Variant("a", str(folders[0]), dtype="fp32")], wanted)
    lm = load_model(str(folders[0]), dtype="fp32")
    for row, outcome in zip(rows, report.questions[0].summaries[0].result.outcomes, strict=True):
        prompt = render(MCQ(row["question"], tuple(row["choices"])), [row["fact1"]], "cloze")
        (scores,) = score(lm, [prompt], "cloze", lm.card.normalization)
        assert outcome.probabilities == pytest.approx(scores.probabilities(lm.card.temperature), abs=1e-4)
    file.write_text(json.dumps(QUESTIONS[0]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"facts.jsonl line 1: no 'fact1'; leave 'fact' out of the recipe"):
        evaluate([Variant("a", "no-such-model")], wanted)


def test_the_same_model_gains_nothing(folders: tuple[Path, Path]) -> None:
    folder = str(folders[0])
    report = evaluate([Variant("a", folder), Variant("b", folder)], Evaluation(kind="evaluate"), pairs=PAIRS)
    assert report.preferences is not None
    one = report.preferences.models[1]
    assert one.rewards is not None
    assert one.rewards.accuracy.right == 0  # a tie is no preference
    assert (one.rewards.margin.low, one.rewards.margin.high) == (0, 0)
    assert one.likelihood.against is not None
    assert (one.likelihood.against.gained, one.likelihood.against.lost, one.likelihood.against.p) == (0, 0, 1)


def test_answers_are_cut_and_prompts_without_room_are_left_out_for_all(folders: tuple[Path, Path], lm: LanguageModel) -> None:
    long = Pair((Message("user", "word " * 300),), "yes", "no", "pairs", 7)
    wordy = Pair((Message("user", "Say it."),), "good " * 300, "bad", "pairs", 8)
    variants = [Variant(folder.name, str(folder), dtype="fp32") for folder in folders]
    report = evaluate(variants, Evaluation(kind="evaluate"), pairs=[*PAIRS, long, wordy], max_length=100)
    assert report.preferences is not None
    assert (report.preferences.n, report.preferences.left_out) == (7, 1)
    asked = len(
        lm.tokenizer.apply_chat_template([{"role": "user", "content": "Say it."}], add_generation_prompt=True)["input_ids"]
    )
    whole = [float(reading(folders[0], lm, prompt, good).sum()) for prompt, good, _ in ANSWERS]
    whole.append(float(reading(folders[0], lm, "Say it.", "good " * 300)[: 100 - asked].sum()))
    assert report.preferences.models[0].chosen.value == pytest.approx(np.mean(whole), abs=1e-3)
    with pytest.raises(UserError, match="no pair fits: each prompt alone is longer than --max-length"):
        evaluate(variants[:1], Evaluation(kind="evaluate"), pairs=[long])


def test_the_bootstrap_knows_the_error_of_a_mean() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(3, 2, size=400)
    found = mean(values, [str(n) for n in range(400)])
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    # Nine rows of each prompt that say the same are no more than one.
    nine = mean(np.repeat(values, 9), [str(n // 9) for n in range(3600)])
    assert nine.high - nine.low == pytest.approx(found.high - found.low, rel=0.1)
    alone = mean(np.repeat(values, 9), [str(n) for n in range(3600)])
    assert alone.high - alone.low == pytest.approx((found.high - found.low) / 3, rel=0.1)


def test_the_bootstrap_covers_what_is_true() -> None:
    draw = np.random.default_rng(1)
    groups = [str(n) for n in range(60)]
    covered = 0
    for seed in range(200):
        tokens = draw.integers(5, 50, size=60)
        nats = tokens * draw.normal(2.0, 0.5, size=60)  # 2 nats a token
        found = of_sums([nats, tokens], groups, lambda total, n: total / n, seed)
        covered += found.low <= 2.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_bootstrap_is_the_same_every_time_and_pairs_its_columns() -> None:
    draw = np.random.default_rng(2)
    first, groups = draw.normal(0, 10, size=50), [str(n) for n in range(50)]
    assert mean(first, groups, seed=3) == mean(first, groups, seed=3) != mean(first, groups, seed=4)
    shifted = of_sums([first + 1, first, np.ones(50)], groups, lambda a, b, n: (a - b) / n)
    assert (shifted.low, shifted.value, shifted.high) == pytest.approx((1, 1, 1))
    single = mean([1.0, 2.0], ["same", "same"])
    assert (single.value, single.low, single.high) == (1.5, -math.inf, math.inf)


def test_responses_are_drawn_by_what_they_say(files: Path) -> None:
    found, bad = read_responses(files / "pairs.jsonl")
    assert (len(found), bad) == (6, [])
    two = drawn(found, 2, seed=0)
    assert two == drawn(found[::-1], 2, seed=0)
    assert len(drawn(found, 0.5, seed=0)) == 3
    assert drawn(found, None, seed=0) == found


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["x", *map(str, arguments)])


def test_the_command_prints_what_the_function_finds(
    folders: tuple[Path, Path], files: Path, found: Report, tmp_path: Path
) -> None:
    base, tuned = folders
    shown = cli(
        tuned, "--base", base, "--dtype", "fp32", "--preferences", files / "pairs.jsonl", "--responses", files / "truths.csv",
        "--questions", files / "questions.jsonl", "--scoring", "cloze", "--beta", BETA, "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    record = json.loads(shown.stdout)
    assert [variant["name"] for variant in record["variants"]] == ["base", "tuned"]
    assert found.preferences is not None
    rewards = found.preferences.models[1].rewards
    assert rewards is not None
    figures = record["preferences"]["models"][1]["rewards"]
    assert figures["accuracy"]["right"] == rewards.accuracy.right
    assert figures["margin"]["value"] == pytest.approx(rewards.margin.value)
    assert record["responses"][0]["models"][1]["cross_entropy"]["value"] == pytest.approx(
        found.responses[0].models[1].cross_entropy.value
    )
    assert (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize(
    ("option", "name", "content", "message"),
    [
        ("--responses", "x.csv", "Question,Answer\na,b\n", "has no column 'Best Answer' \\(it has Question, Answer\\)"),
        ("--responses", "x.csv", "Question,Best Answer\na,\n", "holds no answer; x.csv row 1: no 'Best Answer'"),
        ("--responses", "x.jsonl", '{"prompt": "a"}\n', "holds no answer; x.jsonl row 1: no 'chosen'"),
        (
            "--preferences",
            "x.jsonl",
            '{"prompt": "a", "chosen": "b", "rejected": "b"}\n',
            "x.jsonl row 1: no answer is preferred",
        ),
        ("--preferences", "x.jsonl", '{"prompt": "a", "chosen": "b", "rejected": " "}\n', "x.jsonl row 1: an answer is empty"),
        ("--questions", "x.jsonl", '{"question": "a", "choices": ["b", "c"]}\n', "no question has a key"),
        ("--questions", "none.jsonl", None, "none.jsonl does not exist"),
        ("--responses", "none.csv", None, "there is no file"),
    ],
)
def test_what_is_wrong_is_named_before_a_model_is_loaded(
    tmp_path: Path, option: str, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    shown = cli("no-such-model", option, tmp_path / name)
    assert isinstance(shown.exception, UserError)
    with pytest.raises(UserError, match=message):
        raise shown.exception


def test_nothing_to_evaluate_on_is_said() -> None:
    with pytest.raises(UserError, match="there is nothing to evaluate on; give questions, preferences or responses"):
        evaluate([Variant("a", "no-such-model")], Evaluation(kind="evaluate"))
