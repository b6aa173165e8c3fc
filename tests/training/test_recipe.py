from pathlib import Path

import pytest

from ingest.errors import UserError
from training.recipe import load_recipe, packaged_recipes

VALID = "name: x\nmodel: m\ndata: [{questions: q.jsonl}]\ntuning: {learning_rate: 5e-5}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "q.jsonl").write_text("{}\n")
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", packaged_recipes(), ids=lambda path: path.name)
def test_every_packaged_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert all(source.questions.is_file() for source in recipe.data)


def test_numbers_like_5e_5_are_numbers_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VALID))
    assert recipe.tuning.learning_rate == 5e-5
    assert recipe.data[0].questions == tmp_path / "q.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: m", "modle: m", "unknown key 'modle', did you mean 'model'"),
        ("learning_rate", "learning_rat", "unknown key 'tuning.learning_rat', did you mean 'learning_rate'"),
        ("5e-5", "fast", "'tuning.learning_rate'"),
        ("5e-5", "7", "'tuning.learning_rate'"),
        ("q.jsonl", "none.jsonl", "no question file"),
        ("[{questions: q.jsonl}]", "[]", "'data'"),
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
