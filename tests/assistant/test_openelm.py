"""OpenELM against a straightforward computation of the published architecture, and in the company of the other libraries."""

import json
import math
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from assistant.answer import Assistant
from assistant.card import CARD_FILE
from assistant.mcq import MCQ
from assistant.model import load_model
from assistant.openelm import LORA_TARGETS, OpenELMConfig, OpenELMForCausalLM
from ingest.errors import ModelError

ROOT = Path(__file__).resolve().parents[2]
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
SMALL = {"num_transformer_layers": 3, "model_dim": 64, "head_dim": 8, "vocab_size": 256, "ffn_dim_divisor": 16}
# What stands in the published config.json besides the sizes.
PUBLISHED = {
    "activation_fn_name": "swish", "architectures": ["OpenELMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_openelm.OpenELMConfig", "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM"
    },
    "bos_token_id": 1, "eos_token_id": 2, "ffn_multipliers": [0.5, 2.25, 4.0], "ffn_with_glu": True, "initializer_range": 0.02,
    "max_context_length": 2048, "model_type": "openelm", "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True, "num_gqa_groups": 4, "num_kv_heads": [1, 2, 2], "num_query_heads": [4, 8, 8],
    "qkv_multipliers": [0.5, 1.0], "rope_freq_constant": 10000, "rope_max_length": 4096, "share_input_output_layers": True,
    "torch_dtype": "float32", "transformers_version": "4.39.3", "use_cache": True,
}  # fmt: skip
LAYER = [
    "attn.qkv_proj", "attn.q_norm", "attn.k_norm", "attn.out_proj", "ffn.proj_1", "ffn.proj_2", "attn_norm", "ffn_norm",
]  # fmt: skip
IDS = torch.tensor([[5, 90, 3, 3, 41, 17, 60, 200]])


def small(**changes: object) -> OpenELMForCausalLM:
    torch.manual_seed(0)
    model = OpenELMForCausalLM(OpenELMConfig.of_size("270M", **{**SMALL, **changes}))
    for parameter in model.parameters():  # norms, too, are something else than one
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.float()  # type: ignore[no-any-return]


def save_tokenizer(folder: Path, *, added: tuple[str, ...] = ()) -> None:
    """A token for each byte."""
    vocabulary = {char: id_ for id_, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder as Apple publishes it, but for its size: weights, a config.json that names code, and no tokenizer."""
    folder = tmp_path / "OpenELM"
    folder.mkdir()
    weights = {name: tensor for name, tensor in small().state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **SMALL}), encoding="utf-8")
    return folder


@pytest.fixture
def folder(bare: Path) -> Path:
    """The same with a tokenizer."""
    save_tokenizer(bare)
    return bare


def plainly(weights: dict[str, torch.Tensor], config: OpenELMConfig, ids: list[int]) -> torch.Tensor:
    """The published architecture, head by head and token by token, in double precision; returns logits (tokens, vocabulary)."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / torch.sqrt((x**2).mean() + 1e-6) * w[name]

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        half = config.head_dim // 2
        out = x.clone()
        for i in range(half):
            angle = position / config.rope_freq_constant ** (2 * i / config.head_dim)
            out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
            out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
        return out

    rows = [w["transformer.token_embeddings.weight"][i] for i in ids]
    for layer in range(config.num_transformer_layers):
        at = f"transformer.layers.{layer}."
        q_heads, k_heads = config.query_heads[layer], config.key_heads[layer]
        heads = []
        for position, x in enumerate(rows):
            parts = (w[at + "attn.qkv_proj.weight"] @ norm(x, at + "attn_norm.weight")).view(-1, config.head_dim)
            q = [turned(norm(h, at + "attn.q_norm.weight"), position) for h in parts[:q_heads]]
            k = [turned(norm(h, at + "attn.k_norm.weight"), position) for h in parts[q_heads : q_heads + k_heads]]
            heads.append((q, k, list(parts[q_heads + k_heads :])))
        for position, x in enumerate(rows):
            mixed = []
            for head in range(q_heads):
                shared = head // config.num_gqa_groups
                scores = torch.stack([heads[position][0][head] @ heads[j][1][shared] for j in range(position + 1)])
                weight = (scores / math.sqrt(config.head_dim)).softmax(0)
                mixed.append(sum(weight[j] * heads[j][2][shared] for j in range(position + 1)))
            x = x + w[at + "attn.out_proj.weight"] @ torch.cat(mixed)  # type: ignore[arg-type]
            gate, wide = (w[at + "ffn.proj_1.weight"] @ norm(x, at + "ffn_norm.weight")).chunk(2)
            rows[position] = x + w[at + "ffn.proj_2.weight"] @ (gate * gate.sigmoid() * wide)
    return torch.stack([w["transformer.token_embeddings.weight"] @ norm(x, "transformer.norm.weight") for x in rows])


def test_it_computes_the_published_architecture() -> None:
    model = small()
    expected = plainly(model.state_dict(), model.config, IDS[0].tolist())
    torch.testing.assert_close(logits(model)[0].double(), expected, atol=1e-3, rtol=1e-3)


def test_the_four_sizes_have_the_published_shapes() -> None:
    published = {"270M": 271_527_168, "450M": 457_179_136, "1_1B": 1_079_891_456, "3B": 3_036_647_424}
    for size, count in published.items():
        with torch.device("meta"):
            model = OpenELMForCausalLM(OpenELMConfig.of_size(size))
        assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert OpenELMConfig.of_size("270M").query_heads == [12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20]


def test_generation_with_a_cache_equals_reading_anew() -> None:
    model = small()
    ids = torch.tensor([[5, 90, 3, 41]])
    cached = model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=True, pad_token_id=0)
    anew = model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=False, pad_token_id=0)
    assert cached.tolist() == anew.tolist()


def test_parameters_are_named_as_published(tmp_path: Path) -> None:
    expected = {f"transformer.layers.{layer}.{name}.weight" for layer in range(3) for name in LAYER}
    expected |= {"transformer.token_embeddings.weight", "transformer.norm.weight"}
    model = small()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == expected  # the head is the embeddings
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    apart = small(share_input_output_layers=False)
    apart.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == expected | {"lm_head.weight"}
    torch.testing.assert_close(logits(OpenELMForCausalLM.from_pretrained(tmp_path)), logits(apart))


def test_a_published_folder_loads_without_its_code_silently(folder: Path) -> None:
    program = (
        "import sys; from assistant.model import load_model; early = 'assistant.openelm' in sys.modules\n"
        "print(early, type(load_model(sys.argv[1]).model).__module__)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, folder], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (shown.stdout, shown.stderr) == ("False assistant.openelm\n", "")


def test_what_is_loaded_and_saved_again_computes_the_same(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), dtype="fp32")
    assert torch.equal(logits(loaded.model), logits(small()))
    loaded.model.save_pretrained(tmp_path / "again")
    loaded.tokenizer.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_model(str(tmp_path / "again"), dtype="fp32").model), logits(small()))


@pytest.mark.parametrize("kind", ["letter", "cloze"])
def test_it_answers(folder: Path, kind: Any) -> None:
    lm = load_model(str(folder), dtype="fp32")
    answer = Assistant(lm, None, scoring=kind).answer(MCQ("Which is red?", ("Mars", "Venus", "The moon")))
    assert lm._packs  # options are read together
    assert lm.window == 2048
    assert answer.letter in "ABC"
    assert sum(answer.probabilities) == pytest.approx(1)
    assert len(set(answer.probabilities)) == 3


def test_a_tokenizer_is_named_by_the_card_or_the_caller(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'holds no tokenizer; name one in .*mcqa\.json, as \{"tokenizer": "a folder'):
        load_model(str(bare))
    save_tokenizer(tmp_path / "words")
    by_caller = load_model(str(bare), tokenizer=str(tmp_path / "words"))
    (bare / CARD_FILE).write_text('{"tokenizer": "../words"}', encoding="utf-8")  # from the model's folder
    by_card = load_model(str(bare))
    assert by_caller.encode("Any text") == by_card.encode("Any text") != []
    assert by_card.card.tokenizer == "../words"
    save_tokenizer(tmp_path / "more words", added=("<extra>",))
    for named, message in {
        "../more words": "has 257 tokens, but .*OpenELM knows 256; name the tokenizer that the model was trained with",
        "../no words": r"no tokenizer folder \.\./no words; give a folder with tokenizer\.json",
        "nobody/no-words": "no tokenizer 'nobody/no-words' here",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(str(bare), tokenizer=named)


def test_a_tokenizer_of_special_tokens_alone_is_none(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2, n_positions=64)  # transformers would make one up
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_model(str(tmp_path))


def test_padding_on_either_side_changes_nothing() -> None:
    model = small()
    text = [5, 90, 3, 41]
    with torch.inference_mode():
        alone = model(torch.tensor([text])).logits[0, -1]
        right = model(torch.tensor([[*text, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]])).logits[0, 3]
        left = model(torch.tensor([[0, 0, *text]]), attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1]])).logits[0, -1]
    torch.testing.assert_close(right, alone, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(left, alone, atol=1e-3, rtol=1e-3)


def test_gradients_flow_with_checkpointing_as_without() -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        model = small().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        attention = model.transformer.layers[0].attn
        attention.register_forward_hook(lambda *_, kind=checkpointing: calls.append(kind))
        model(IDS, labels=IDS).loss.backward()
        gradients.append(attention.qkv_proj.weight.grad)
    assert calls == [False, True, True]  # computed again for the gradients
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_norms_may_be_more_exact_than_the_rest() -> None:
    """As training a quantized model has it."""
    model = small().bfloat16()
    rounded = logits(model)
    for name, module in model.named_modules():
        if name.endswith("norm"):
            module.float()
    torch.testing.assert_close(logits(model), rounded)


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_quantized_it_computes_nearly_the_same(folder: Path, kind: Any, layer: str) -> None:
    exact, quantized = load_model(str(folder), dtype="fp32"), load_model(str(folder), quantize=kind, dtype="fp32")
    assert sum(type(module).__name__ == layer for module in quantized.model.modules()) == 3 * len(LORA_TARGETS)
    expected, found = logits(exact.model), logits(quantized.model)
    assert found.isfinite().all()
    assert (found - expected).abs().mean() < (0.4 if kind == "nf4" else 0.1) * expected.std()


@pytest.mark.parametrize("quantize", ["none", pytest.param("nf4", marks=needs_bitsandbytes)])
def test_adapters_learn_and_load(bare: Path, tmp_path: Path, quantize: Any) -> None:
    peft = pytest.importorskip("peft")
    save_tokenizer(tmp_path / "words")
    (bare / CARD_FILE).write_text('{"tokenizer": "../words"}', encoding="utf-8")
    lm = load_model(str(bare), quantize=quantize, dtype="fp32")
    config = peft.LoraConfig(r=4, target_modules=list(LORA_TARGETS), task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for something that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing")
        adapted = peft.get_peft_model(lm.model, config).train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 3 * len(LORA_TARGETS)
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    losses = []
    for _ in range(12):
        loss = adapted(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    if quantize == "none":
        adapted.eval().save_pretrained(tmp_path / "adapter")
        merged = load_model(str(tmp_path / "adapter"), dtype="fp32")
        torch.testing.assert_close(logits(merged.model), logits(adapted), atol=1e-3, rtol=1e-3)
        assert merged.encode("Any text") == lm.encode("Any text")
