"""The difference between two models as an adapter: whole where the rank holds it, nearest where it does not."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from assistant.model import LanguageModel, load_model
from ingest.errors import ModelError, UserError
from training.extract import extract


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, lm: LanguageModel) -> tuple[Path, Path]:
    """A tiny base, and the same with differences of rank 3 in all linear layers but the head."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny_model("llama", folder / "base", lm.tokenizer)
    tuned = load_model(str(base), dtype="fp32")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, layer in tuned.model.named_modules():
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                outputs, inputs = layer.weight.shape
                layer.weight += 0.05 * torch.randn(outputs, 3) @ torch.randn(3, inputs)
    tuned.model.save_pretrained(folder / "tuned")
    tuned.tokenizer.save_pretrained(folder / "tuned")
    return folder / "tuned", base


def distance(one: str, other: str) -> float:
    ids = torch.arange(40, 80)[None]
    with torch.inference_mode():
        logits = [load_model(name, dtype="fp32").model(ids).logits for name in (one, other)]
    return float((logits[0] - logits[1]).norm() / logits[1].norm())


def test_an_adapter_of_enough_rank_makes_the_tuned_model_of_its_base(models: tuple[Path, Path], tmp_path: Path) -> None:
    tuned, base = map(str, models)
    made = extract(tuned, base, 3, tmp_path / "adapter")
    assert made["left"] < 1e-6
    assert distance(str(tmp_path / "adapter"), tuned) < 0.01 < distance(base, tuned)


def test_one_of_less_rank_loses_as_much_as_it_says(models: tuple[Path, Path], tmp_path: Path) -> None:
    tuned, base = map(str, models)
    made = extract(tuned, base, 1, tmp_path / "adapter")
    assert 0.1 < made["left"] < 0.7
    assert distance(str(tmp_path / "adapter"), tuned) < distance(base, tuned)
    with pytest.raises(UserError, match="already exists"):
        extract(tuned, base, 1, tmp_path / "adapter")


def test_models_that_no_adapter_makes_of_each_other_are_refused(
    models: tuple[Path, Path], tmp_path: Path, lm: LanguageModel
) -> None:
    base = str(models[1])
    with pytest.raises(ModelError, match="the same weights"):
        extract(base, base, 1, tmp_path / "adapter")
    with pytest.raises(ModelError, match="other names or shapes"):
        extract(base, lm.name, 1, tmp_path / "adapter")
    other = load_model(base, dtype="fp32")
    with torch.no_grad():
        other.model.get_input_embeddings().weight *= 2
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="embed_tokens"):
        extract(str(tmp_path / "other"), base, 1, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
