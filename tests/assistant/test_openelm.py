"""OpenELM against a straightforward computation of the published architecture, and in the company of the other libraries."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from assistant.openelm import LORA_TARGETS, OpenELMConfig, OpenELMForCausalLM

SMALL = {"num_transformer_layers": 3, "model_dim": 64, "head_dim": 8, "vocab_size": 96, "ffn_dim_divisor": 16}


def small(**changes: object) -> OpenELMForCausalLM:
    torch.manual_seed(0)
    model = OpenELMForCausalLM(OpenELMConfig.of_size("270M", **{**SMALL, **changes}))
    for parameter in model.parameters():  # norms, too, are something else than one
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


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
    ids = [5, 90, 3, 3, 41, 17, 60]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    expected = plainly(model.state_dict(), model.config, ids)
    torch.testing.assert_close(logits.double(), expected, atol=1e-3, rtol=1e-3)


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


def test_a_folder_with_the_published_names_loads_by_the_auto_classes(tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in stored  # as in the published checkpoints, it is the embeddings
    assert "transformer.layers.2.attn.qkv_proj.weight" in stored
    save_file({name: tensor.half() for name, tensor in stored.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    assert isinstance(AutoConfig.from_pretrained(tmp_path), OpenELMConfig)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=2e-2, rtol=2e-2)


def test_padding_on_either_side_changes_nothing() -> None:
    model = small()
    text = [5, 90, 3, 41]
    with torch.inference_mode():
        alone = model(torch.tensor([text])).logits[0, -1]
        right = model(torch.tensor([[*text, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]])).logits[0, 3]
    torch.testing.assert_close(right, alone, atol=1e-4, rtol=1e-4)


def test_gradients_flow_with_checkpointing_as_without() -> None:
    ids = torch.tensor([[5, 90, 3, 41, 7]])
    gradients = []
    for checkpointing in (False, True):
        model = small().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids).loss.backward()
        gradients.append(model.transformer.layers[0].attn.qkv_proj.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_adapters_find_their_layers() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(small(), peft.LoraConfig(r=4, target_modules=list(LORA_TARGETS), task_type="CAUSAL_LM"))
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 3 * len(LORA_TARGETS)
