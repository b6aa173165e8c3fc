"""A recipe file → typed settings. Unknown keys are refused, and every error names the file and the key."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assistant.card import Normalization
from ingest.errors import UserError, did_you_mean


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Settings):
    """A file of keyed questions and, where passages are to be shown, the indexed course to find them in."""

    questions: Path
    course: str | None = None


class Tuning(_Settings):
    """How the weights change. `rank`, `alpha` and `dropout` belong to LoRA (arXiv 2106.09685)."""

    method: Literal["lora", "full"] = "lora"
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float = Field(gt=0, lt=1)
    warmup: float = Field(default=0.1, ge=0, le=1)
    epochs: int = Field(default=1, ge=1)
    accumulation: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)


class Recipe(_Settings):
    """MCQ tuning from keyed questions to a model folder."""

    name: str = Field(pattern=r"^[\w-]+$")
    model: str
    seed: int = 0
    data: tuple[Source, ...] = Field(min_length=1)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    passages: int = Field(default=3, ge=0, le=50)
    normalization: Normalization = "token"
    tuning: Tuning


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; paths in it are relative to its folder. Raises UserError naming the file and the key."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); `mcqa-train recipes` lists the packaged ones") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(_explain(dict(item)) for item in error.errors())) from error
    sources = [source.model_copy(update={"questions": (path.parent / source.questions).resolve()}) for source in recipe.data]
    for source in sources:
        if not source.questions.is_file():
            raise UserError(f"{path}: data: no question file {source.questions}")
    return recipe.model_copy(update={"data": tuple(sources)})


def packaged_recipes() -> list[Path]:
    """Return the recipe files that come with the package, by name."""
    return sorted((Path(__file__).parent / "recipes").glob("*.yaml"))


def _explain(item: dict[str, Any]) -> str:
    *parents, key = item["loc"] or ("the file",)
    place = ".".join(map(str, [*parents, key]))
    if item["type"] == "extra_forbidden":
        known = [*Recipe.model_fields, *Tuning.model_fields, *Source.model_fields]
        return f"unknown key '{place}'{did_you_mean(str(key), known)}"
    return f"'{place}': {item['msg']}" + (f" (found {item['input']!r})" if item["type"] != "missing" else "")
