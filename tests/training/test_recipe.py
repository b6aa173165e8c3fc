from pathlib import Path

import pytest

from ingest.errors import UserError
from training.preflight import refuse, steps_of
from training.recipe import DPO, Fitting, Recipe, find, load_recipe, packaged_recipes

VALID = """
name: x
model: m
architecture: llama
stages:
  - kind: dpo
    data: [{file: pairs.jsonl, origin: someone/pairs}]
    adapter: {rank: 8}
    fitting: {learning_rate: 5e-5}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", packaged_recipes(), ids=lambda path: path.name)
def test_every_packaged_recipe_loads_and_can_run(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.about
    assert recipe.sources
    for _, variant in recipe.variants():
        refuse(variant)


def test_the_packaged_recipes_are_those_of_the_published_systems() -> None:
    recipes = {path.stem: load_recipe(path) for path in packaged_recipes()}
    assert set(recipes) == {"openelm-450m", "phi-2", "mistral-7b", "gpt2-124m", "zephyr-7b", "smollm2-mcqa"}
    sft, dpo, _ = recipes["zephyr-7b"].stages
    assert (sft.kind, sft.fitting.batch_size * sft.fitting.accumulation) == ("sft", 512)  # type: ignore[union-attr]
    assert isinstance(dpo, DPO)
    assert (dpo.fitting.learning_rate, dpo.fitting.batch_size * dpo.fitting.accumulation, dpo.beta) == (5e-7, 32, 0.1)
    phi = recipes["phi-2"].stages[0]
    assert isinstance(phi, DPO)
    assert phi.adapter is not None
    assert (phi.adapter.method, phi.adapter.base, phi.adapter.rank, phi.adapter.dropout) == ("dora", "nf4", 16, 0.05)
    assert [file.use for file in phi.data] == [None, 0.6, 0.6, 5000, None]
    assert len(recipes["mistral-7b"].variants()) == 6


def test_numbers_like_5e_5_are_numbers(tmp_path: Path) -> None:
    stage = load_recipe(write(tmp_path, VALID)).stages[0]
    assert isinstance(stage, DPO)
    assert stage.fitting.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: m", "modle: m", "unknown key 'modle', did you mean 'model'"),
        ("learning_rate", "learning_rat", "unknown key 'stages.0.dpo.fitting.learning_rat', did you mean 'learning_rate'"),
        ("rank", "rang", "unknown key 'stages.0.dpo.adapter.rang', did you mean 'rank'"),
        ("5e-5", "fast", "'stages.0.dpo.fitting.learning_rate'"),
        ("5e-5", "7", "'stages.0.dpo.fitting.learning_rate'"),
        ("kind: dpo", "kind: dop", "'dop'"),
        ("    adapter", "    held: [{file: q.jsonl}]\n    adapter", "preferences are held out by 'split'"),
        ("    adapter", "    questions: [{course: c}]\n    adapter", "either 'file', or 'quiz' with the 'course'"),
        ("    adapter", "    questions: [{quiz: [gap]}]\n    adapter", "either 'file', or 'quiz' with the 'course'"),
        ("data: [{file: pairs.jsonl, origin: someone/pairs}]", "data: []", "either 'data' (preferences) or 'questions'"),
        ("architecture: llama", "architecture: lama", "'architecture'"),
        ("name: x\n", "", "'name': Field required"),
        ("name: x", "name: [", "is not YAML"),
    ],
)
def test_a_wrong_recipe_names_the_file_and_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, VALID.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "at least 1 item" not in str(caught.value)  # what only follows from the mistake is not said


def test_a_sweep_makes_a_recipe_of_every_combination(tmp_path: Path) -> None:
    more = "sweep: {dpo.fitting.learning_rate: [1e-5, 1e-4], dpo.adapter.rank: [4, 8, 16]}\n"
    recipe = load_recipe(write(tmp_path, VALID + more))
    found = {name: variant.stages[0] for name, variant in recipe.variants()}
    assert len(found) == 6
    stage = found["learning_rate=1e-4-rank=16"]
    assert isinstance(stage, DPO)
    assert stage.adapter is not None
    assert (stage.fitting.learning_rate, stage.adapter.rank) == (1e-4, 16)
    assert all(variant.folder == recipe.folder for _, variant in recipe.variants())


@pytest.mark.parametrize("key", ["dpo.fitting.rate", "sft.fitting.learning_rate", "dpo", "dpo.beta.x"])
def test_a_sweep_over_what_is_not_there_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"'sweep': .*{key.split('.')[0]}"):
        load_recipe(write(tmp_path, f"{VALID}sweep: {{{key}: [1e-5]}}\n"))


def test_files_are_found_in_the_data_folder_or_beside_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VALID))
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(UserError, match=r"no .*data.pairs.jsonl and no .*pairs.jsonl; it is published as someone/pairs"):
        find(recipe, Path("pairs.jsonl"), data, "someone/pairs")
    (tmp_path / "pairs.jsonl").touch()
    assert find(recipe, Path("pairs.jsonl"), data) == tmp_path / "pairs.jsonl"
    (data / "pairs.jsonl").touch()
    assert find(recipe, Path("pairs.jsonl"), data) == data / "pairs.jsonl"


def changed(recipe: Recipe, **values: object) -> Recipe:
    """Return the recipe with keys of its first stage changed, written as in fitting__precision."""
    content = recipe.model_dump(mode="json")
    for key, value in values.items():
        place = content["stages"][0]
        *path, last = key.split("__")
        for name in path:
            place = place[name]
        place[last] = value
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapter__base": "int8", "adapter__method": "dora"}, "DoRA over int8 fails on a CPU"),
        ({"fitting__precision": "fp16"}, "fp16 is no format that CPUs compute in"),
        ({"fitting__patience": 2}, "patience needs best"),
        ({"label_smoothing": 0.1}, "label_smoothing does nothing with the loss 'sigmoid'"),
        ({"fitting__loggers": ["tensorbord"]}, "unknown logger 'tensorbord'"),
        ({"fitting__loggers": ["neptune"]}, "the logger neptune needs its package"),
    ],
)
def test_what_cannot_work_is_refused_beforehand(
    tmp_path: Path, values: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        refuse(changed(load_recipe(write(tmp_path, VALID)), **values))


def test_steps_are_counted_as_the_trainer_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fitting(**values: object) -> Fitting:
        return Fitting.model_validate({"learning_rate": 1e-4, **values})

    assert steps_of(fitting(), 10) == 10
    assert steps_of(fitting(batch_size=4, accumulation=2), 10) == 2  # 3 batches: a step of two, one of the last
    assert steps_of(fitting(epochs=3, max_steps=7), 10) == 7
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launch tells its processes
    assert steps_of(fitting(batch_size=2, accumulation=2), 10) == 2  # 5 batches: 3 of each, the last one twice
