"""Merging and quantizing: what is written says what the trained model said, and loads as what it is."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, LlamaConfig
from typer.testing import CliRunner

from assistant.answer import Assistant
from assistant.card import CARD_FILE, Card
from assistant.mcq import MCQ
from assistant.merge import dequantized, is_quantized, keep_layout
from assistant.model import LanguageModel, load_model
from assistant.prompt import render
from assistant.scoring import score
from ingest.errors import ModelError, UserError
from training import cli_quantize
from training.quantize import merge, quantize

pytestmark = pytest.mark.skipif(
    find_spec("bitsandbytes") is None or find_spec("peft") is None, reason="bitsandbytes or peft is not installed"
)
app = typer.Typer()
app.command("x")(cli_quantize.quantize)
app.command("y")(lambda: None)  # with one command alone, typer takes no name
KIND = Literal["none", "int8", "nf4"]
IDS = torch.arange(3, 63)[None]
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}


@pytest.fixture(autouse=True)
def _known_warnings() -> Any:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for something that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        # bitsandbytes computes int8 products in 16 bits, and says so.
        warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
        # GPT-2's layers hold their weights the other way round, which peft notices by itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        yield


@pytest.fixture(scope="module")
def small(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a small model of random weights, by architecture, and the embedded model's tokenizer."""
    torch.manual_seed(0)
    size = len(lm.tokenizer)
    configs: dict[str, Any] = {
        "llama": LlamaConfig(
            vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
        ),
        "gpt2": GPT2Config(vocab_size=size, n_embd=64, n_layer=2, n_head=4, n_positions=512, initializer_range=0.1),
    }  # fmt: skip
    folders = {}
    for name, config in configs.items():
        folders[name] = tmp_path_factory.mktemp("small") / name
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[name])
        lm.tokenizer.save_pretrained(folders[name])
    return folders


def base(folder: Path, kind: KIND) -> Any:
    """Load a model in single precision, quantized or not."""
    config = None
    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    elif kind == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
        )
    more = {} if config is None else {"quantization_config": config, "device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more).eval()
    keep_layout(model)
    return model


def trained(folder: Path, kind: KIND, *, dora: bool = False, model: Any = None) -> Any:
    """Return a model with an adapter that has learnt something: its numbers are random, the same for each base."""
    import peft

    targets = TARGETS[folder.name]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_dora=dora, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model or base(folder, kind), config)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.15)
        elif "magnitude" in name:
            weight.data *= 1 + 0.2 * torch.rand_like(weight)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits[0].float()


def error(model: Any, expected: torch.Tensor) -> float:
    """Return by how much logits differ, in standard deviations of what is expected."""
    return float((logits(model) - expected).std() / expected.std())


# Products of the merged model are computed in single precision from weights rounded to 16 bits, whose last digit is
# 1/2048: errors of some 1e-3 are rounding. Products of int8 round what comes in to 8 bits, too, which no merged model does.
@pytest.mark.parametrize(
    ("architecture", "kind", "dora", "tolerance"),
    [
        ("llama", "none", False, 2e-3),
        ("llama", "none", True, 2e-3),
        ("llama", "nf4", False, 2e-3),
        ("llama", "nf4", True, 2e-3),
        ("llama", "int8", False, 3e-2),
        ("gpt2", "nf4", False, 2e-3),
        ("gpt2", "int8", False, 3e-2),
    ],
)
def test_merged_it_says_what_it_said_in_training(
    small: dict[str, Path], architecture: str, kind: KIND, dora: bool, tolerance: float
) -> None:
    model = trained(small[architecture], kind, dora=dora)
    expected = logits(model)
    before = logits(base(small[architecture], kind))
    merged = merge(model)
    assert {weight.dtype for weight in merged.parameters()} == {torch.float16}
    assert not any(map(is_quantized, merged.modules()))
    assert not any("lora" in name for name, _ in merged.named_modules())
    found = error(merged.float(), expected)
    assert found < tolerance
    assert float((before - expected).std() / expected.std()) > 10 * tolerance  # the adapter does say something


@pytest.mark.parametrize(("kind", "dora", "share"), [("nf4", False, 0.1), ("nf4", True, 0.1), ("int8", False, 0.8)])
def test_merged_into_the_original_weights_it_would_say_other_things(
    small: dict[str, Path], kind: KIND, dora: bool, share: float
) -> None:
    model = trained(small["llama"], kind, dora=dora)
    expected = logits(model)
    adapter = {name: weight.clone() for name, weight in model.state_dict().items() if "lora" in name}
    other = trained(small["llama"], "none", dora=dora)
    assert not other.load_state_dict(adapter, strict=False).unexpected_keys
    into_original = error(merge(other).float(), expected)
    assert error(merge(model).float(), expected) < share * into_original


def test_what_bitsandbytes_has_repacked_is_refused(small: dict[str, Path]) -> None:
    model = base(small["llama"], "nf4")
    assert not any(layer.support_avx512bf16_for_cpu for layer in model.modules() if is_quantized(layer))
    layer = next(filter(is_quantized, model.modules()))
    assert dequantized(layer).shape == (layer.out_features, layer.in_features)
    layer.weight.quant_state.packing_format_for_cpu = True  # as a first pass without the guard leaves it on some processors
    with pytest.raises(ValueError, match="call keep_layout before the first forward pass"):
        merge(model)


def test_weights_that_training_has_ruined_are_refused(small: dict[str, Path]) -> None:
    model = trained(small["llama"], "nf4")
    next(weight for name, weight in model.named_parameters() if "lora_B" in name).data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="q_proj.weight is one.*lower its learning rate"):
        merge(model)


def test_other_adapters_over_quantized_weights_are_refused(small: dict[str, Path]) -> None:
    import peft

    config = peft.IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match=r"cannot be merged into a quantized base; use plain LoRA or DoRA"):
        merge(peft.get_peft_model(base(small["llama"], "nf4"), config))


def adapter_folder(folder: Path, model: Any, named: Path, **card: Any) -> None:
    """Save a model's adapter with its card."""
    model.save_pretrained(folder)
    (folder / CARD_FILE).write_text(Card(base=str(named), scoring="cloze", **card).model_dump_json(), encoding="utf-8")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCQA_HOME", str(tmp_path / "home"))


def test_an_adapter_is_merged_into_the_base_that_its_card_tells(own_home: None, small: dict[str, Path], tmp_path: Path) -> None:
    model = trained(small["llama"], "nf4", model=load_model(str(small["llama"]), quantize="nf4").model)
    adapter_folder(tmp_path / "adapter", model, small["llama"], base_quantization="nf4")
    expected = merge(model).state_dict()
    loaded = load_model(str(tmp_path / "adapter"), dtype="fp32").model
    assert all(torch.equal(weight.half(), expected[name]) for name, weight in loaded.state_dict().items())
    adapter_folder(tmp_path / "adapter", loaded_adapter(tmp_path / "adapter", small["llama"]), small["llama"])
    other = load_model(str(tmp_path / "adapter"), dtype="fp32").model
    assert not torch.equal(other.model.layers[0].mlp.up_proj.weight.half(), expected["model.layers.0.mlp.up_proj.weight"])


def loaded_adapter(folder: Path, named: Path) -> Any:
    import peft

    return peft.PeftModel.from_pretrained(base(named, "none"), folder)


@pytest.mark.parametrize("to", ["int8", "nf4"])
def test_a_quantized_folder_loads_as_what_was_quantized(
    own_home: None, small: dict[str, Path], tmp_path: Path, to: Literal["int8", "nf4"]
) -> None:
    adapter_folder(tmp_path / "adapter", trained(small["llama"], "none"), small["llama"], temperature=0.6)
    made = quantize(str(tmp_path / "adapter"), to, tmp_path / "small")
    assert made["quantized_layers"] == 14  # seven in each of two layers
    assert made["bytes_on_disk"] == (tmp_path / "small" / "model.safetensors").stat().st_size
    loaded = load_model(str(tmp_path / "small"), dtype="bf16")
    assert (loaded.quantization, loaded.card.temperature, loaded.card.scoring) == (to, 0.6, "cloze")
    assert (loaded.card.base, loaded.card.base_sha256) == ("", "")
    assert f", {to}, " in loaded.summary
    expected = logits(load_model(str(tmp_path / "adapter"), quantize=to, dtype="bf16").model)
    assert error(loaded.model, expected) < 1e-3
    assert error(load_model(str(small["llama"]), quantize=to).model, expected) > 0.1  # without the adapter
    with pytest.raises(ModelError, match=rf"are quantized already \({to}\); leave out --quantize int8"):
        load_model(str(tmp_path / "small"), quantize="int8")
    with pytest.raises(UserError, match="already exists"):
        quantize(str(tmp_path / "adapter"), to, tmp_path / "small")


QUESTIONS = [
    {"question": "What do plants take in?", "choices": ["Oxygen", "Carbon dioxide", "Iron"], "answer": "B"},
    {"question": "What carries blood to the heart?", "choices": ["Veins", "Arteries", "Nerves"], "answer": "A"},
    {"question": "What is frozen water called?", "choices": ["Steam", "Fog", "Ice", "Rain"], "answer": "C"},
]


def test_the_comparison_is_that_of_the_two_models_on_the_same_questions(lm: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    output = tmp_path / "small"
    shown = CliRunner().invoke(app, ["x", lm.name, "--to", "nf4", "-o", str(output), "--questions", str(file), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)["comparison"]
    assert found["n"] == 3
    assert found["options"] == 10
    assert found["after"]["bytes_in_memory"] < 0.5 * found["before"]["bytes_in_memory"]
    assert found["after"]["bytes_on_disk"] == (output / "model.safetensors").stat().st_size
    quantized = load_model(str(output))
    differences = []
    for question in QUESTIONS:
        mcq = MCQ(question["question"], tuple(question["choices"]))
        prompt = [render(mcq, [], "cloze", template=lm.card.template)]
        (one,), (other,) = (score(model, prompt, "cloze", "sum") for model in (lm, quantized))
        differences += [abs(a - b) for a, b in zip(one.scores, other.scores, strict=True)]
    # Read together or one by one, 16 bits round otherwise.
    assert found["difference"] == pytest.approx(sum(differences) / 10, rel=0.2)
    for name, model in (("before", lm), ("after", quantized)):
        mcqs = [MCQ(question["question"], tuple(question["choices"])) for question in QUESTIONS]
        letters = [Assistant(model).answer(mcq).letter for mcq in mcqs]
        right = sum(letter == question["answer"] for letter, question in zip(letters, QUESTIONS, strict=True))
        assert found[name]["right"] == right


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "questions.jsonl does not exist"), ('{"question": "a", "choices": ["b", "c"]}', "no question has a key")],
)
def test_bad_questions_are_named_before_a_model_is_loaded(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "questions.jsonl"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    shown = CliRunner().invoke(app, ["x", "no-such-model", "--to", "int8", "--questions", str(file)])
    assert isinstance(shown.exception, UserError)
    assert message in str(shown.exception)
