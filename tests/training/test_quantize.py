"""Merging and quantizing: what is written says what the trained model said, and loads as what it is."""

import copy
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, LlamaConfig

from assistant.card import CARD_FILE, Card
from assistant.merge import dequantized, is_quantized, keep_layout
from assistant.model import LanguageModel, load_model
from ingest.errors import ModelError, UserError
from training.quantize import merge

pytestmark = pytest.mark.skipif(
    find_spec("bitsandbytes") is None or find_spec("peft") is None, reason="bitsandbytes or peft is not installed"
)
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


def trained(folder: Path, kind: KIND, *, dora: bool = False, seed: int = 1) -> Any:
    """Return a model with an adapter that has learnt something: its numbers are random, the same for each base."""
    import peft

    targets = TARGETS[folder.name]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_dora=dora, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base(folder, kind), config)
    torch.manual_seed(seed)
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


@pytest.mark.parametrize(("kind", "dora"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_it_is_merged_into_what_it_was_trained_on(small: dict[str, Path], kind: KIND, dora: bool) -> None:
    model = trained(small["llama"], kind, dora=dora)
    expected = logits(model)
    adapter = {name: weight.clone() for name, weight in model.state_dict().items() if "lora" in name}
    other = trained(small["llama"], "none", dora=dora)
    assert not other.load_state_dict(adapter, strict=False).unexpected_keys
    into_original = error(merge(other).float(), expected)
    assert error(merge(model).float(), expected) < 0.5 * into_original
