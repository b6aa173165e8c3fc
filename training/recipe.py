"""A recipe file → typed stages. Unknown keys are refused, and every error names the file and the key."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assistant.card import Normalization, ScoringKind
from assistant.quiz import Kind as QuizKind
from ingest.errors import UserError, did_you_mean
from training.filters import Filters

Architecture = Literal["gpt2", "llama", "mistral", "openelm", "phi"]
Format = Literal["chat", "alpaca", "plain", "verbatim"]
Metric = Literal["loss", "margin", "accuracy"]


class Settings(BaseModel):
    """Values that a recipe gives; a key that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Settings):
    """A file of the data folder, and where its publisher has it.

    `use` draws a part of it: a whole number of rows, or a fraction of them. `filters` hold for this file alone.
    """

    file: Path
    origin: str = ""
    use: int | float | None = Field(default=None, gt=0)
    filters: Filters = Filters()


class Questions(Settings):
    """A file or folder of keyed questions and, where passages are shown, the indexed course to find them in.

    `subjects` keeps only these; `use` at most so many, evenly from all subjects; `shots` solved examples stand before each.
    `fact` shows the fact that a row names (OpenBookQA) as its passage instead of searching a course. In place of a file, `quiz`
    names kinds of questions to make from the course's own pages (assistant.quiz), `use` of them, evenly from all pages; they
    are shown with passages that do not hold the text they were made of.
    """

    file: Path | None = None
    origin: str = ""
    course: str | None = None
    subjects: tuple[str, ...] = ()
    use: int | None = Field(default=None, ge=1)
    shots: int = Field(default=0, ge=0, le=20)
    fact: bool = False
    quiz: tuple[QuizKind, ...] = ()

    @model_validator(mode="after")
    def _is_found_somewhere(self) -> "Questions":
        if (self.file is None) == (not self.quiz) or (self.quiz and (self.course is None or self.shots or self.fact)):
            raise ValueError("give either 'file', or 'quiz' with the 'course' to make questions of")
        return self

    @property
    def name(self) -> str:
        """What to call them."""
        return self.file.name if self.file is not None else f"{' and '.join(self.quiz)} questions"


class Split(Settings):
    """Parts in percent, train/test or train/valid/test, all rows of a prompt in one of them unless `by` says "row"."""

    parts: tuple[float, ...] = (80, 20)
    by: Literal["prompt", "row"] = "prompt"

    @model_validator(mode="after")
    def _is_whole(self) -> "Split":
        if len(self.parts) not in (2, 3) or min(self.parts) <= 0 or abs(sum(self.parts) - 100) > 1e-6:
            raise ValueError("'parts' are two or three percentages that add up to 100")
        return self


class Adapter(Settings):
    """Low-rank adapters instead of all weights: LoRA (arXiv 2106.09685) or DoRA (2402.09353), on a base that may be quantized.

    LoRA over `nf4` (with double quantization) is QLoRA (2305.14314), DoRA over it QDoRA. `targets` are the linear layers of
    attention, those between ("dense"), both ("all"), or layers by name.
    """

    method: Literal["lora", "dora"] = "lora"
    base: Literal["none", "int8", "nf4"] = "none"
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["attention", "dense", "all"] | tuple[str, ...] = "all"


class Fitting(Settings):
    """How weights change, with the names and units of transformers' TrainingArguments where they are the same.

    `warmup` is a share of all steps. `batch_size` rows are read at once, `accumulation` batches make a step. `max_length` is
    in tokens, prompt and answer together: longer answers are cut, and rows whose prompt alone fills it are left out and
    counted. Held-out rows are looked at every `evaluate_every` steps (None: after each epoch); `patience` ends training after
    so many looks without a better `best`, and the best weights are kept. `loggers` are transformers' names.
    """

    learning_rate: float = Field(gt=0, lt=1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=1, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "paged_adamw_32bit", "paged_adamw_8bit", "adafactor"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, ge=8)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    best: Metric | None = None
    loggers: tuple[str, ...] = ("tensorboard",)


class Training(Settings):
    """What all stages that change weights share; `adapter` None trains all weights."""

    fitting: Fitting
    adapter: Adapter | None = None
    split: Split = Split()
    filters: Filters = Filters()


class OnQuestions(Training):
    """What stages share that are tuned on keyed questions: those in `held` are held out, else the shares of `split` are."""

    held: tuple[Questions, ...] = ()


class SFT(Training):
    """Supervised tuning: the answers' tokens become likelier (`kind: sft`)."""

    kind: Literal["sft"]
    data: tuple[File, ...] = Field(min_length=1)


class DPO(OnQuestions):
    """Direct preference optimization (arXiv 2305.18290); the reference is the model as the stage finds it (`kind: dpo`).

    `data` are files of preferences; `questions` are keyed ones, of which each wrong option, or the `hardest` for the model,
    is rejected.
    """

    kind: Literal["dpo"]
    data: tuple[File, ...] = ()
    questions: tuple[Questions, ...] = ()
    scoring: ScoringKind = "cloze"
    passages: int = Field(default=0, ge=0, le=50)
    hardest: bool = False
    loss: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    beta: float = Field(default=0.1, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _has_data(self) -> "DPO":
        if bool(self.data) == bool(self.questions):
            raise ValueError("give either 'data' (preferences) or 'questions' (keyed)")
        if self.held and not self.questions:
            raise ValueError("'held' are keyed questions; preferences are held out by 'split'")
        return self


class MCQTuning(OnQuestions):
    """Tuning to answer: cross-entropy of the right option among all of them (`kind: mcq`).

    `letter`: over the options' letter tokens. `cloze`: over their log-likelihoods, divided as `normalization` says; with
    `turns_negation`, what is not so is asked plainly, and the right option's is to be the lowest (assistant.negation).
    """

    kind: Literal["mcq"]
    data: tuple[Questions, ...] = Field(min_length=1)
    objective: ScoringKind = "cloze"
    normalization: Normalization = "token"
    passages: int = Field(default=3, ge=0, le=50)
    lists_options: bool = False
    turns_negation: bool = False


class Quantization(Settings):
    """The weights in 8 bits (LLM.int8, arXiv 2208.07339) or 4 (`nf4`), a loaded adapter merged first (`kind: quantize`)."""

    kind: Literal["quantize"]
    to: Literal["int8", "nf4"]


class Evaluation(Settings):
    """The model before and after, on the same items (`kind: evaluate`).

    `questions` by accuracy; `preferences`: the last preference stage's test part by reward accuracy; `responses`: files of
    preferences, or TruthfulQA's CSV, by cross-entropy of their chosen or best answers.
    """

    kind: Literal["evaluate"]
    questions: tuple[Questions, ...] = ()
    scoring: ScoringKind | None = None
    passages: int = Field(default=3, ge=0, le=50)
    preferences: bool = True
    responses: tuple[File, ...] = ()

    @model_validator(mode="after")
    def _has_files(self) -> "Evaluation":
        if any(one.file is None for one in self.questions):
            raise ValueError("an evaluation takes questions that stand in a file; make one with mcqa-train prepare quiz")
        return self


Stage = Annotated[SFT | DPO | MCQTuning | Quantization | Evaluation, Field(discriminator="kind")]


class Recipe(Settings):
    """A model, and the stages that change it, one after the other.

    `model` is what `mcqa --model` takes; `tokenizer` a folder or name where the model has none of its own. `architecture` is
    what the adapter's targets belong to. `format` is how conversations become text: the tokenizer's `chat` template, `alpaca`,
    `plain` text, or prompt and answer `verbatim`. `sweep` lists values to try by key, as in `dpo.fitting.learning_rate`.
    """

    name: str = Field(pattern=r"^[\w-]+$")
    about: str = ""
    sources: tuple[str, ...] = ()
    model: str
    tokenizer: str | None = None
    architecture: Architecture
    format: Format = "chat"
    seed: int = 0
    stages: tuple[Stage, ...] = Field(min_length=1)
    sweep: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    folder: Path = Field(default=Path(), exclude=True)
    """Where files are looked for that the data folder does not have: that of the recipe."""

    @model_validator(mode="after")
    def _sweeps_what_is_there(self) -> "Recipe":
        for key, values in self.sweep.items():
            if not values:
                raise ValueError(f"'sweep': no value for '{key}'")
            for value in values:
                self._changed(key, value)
        return self

    def variants(self) -> "list[tuple[str, Recipe]]":
        """Return (name, recipe without a sweep) for each combination of the sweep's values; ("", itself) without one."""
        found = [("", self.model_copy(update={"sweep": {}}))]
        for key, values in self.sweep.items():
            found = [
                ("-".join(filter(None, [name, f"{key.rsplit('.', 1)[-1]}={value}"])), recipe._changed(key, value))
                for name, recipe in found
                for value in values
            ]
        return found

    def _changed(self, key: str, value: Any) -> "Recipe":
        kind, *path = key.split(".")
        content = self.model_dump(mode="json") | {"sweep": {}, "folder": self.folder}
        stages = [stage for stage in content["stages"] if stage["kind"] == kind]
        for stage in stages:
            place: Any = stage
            for name in path[:-1]:
                place = place.get(name) if isinstance(place, dict) else None
            if not path or not isinstance(place, dict) or path[-1] not in place:
                raise ValueError(f"'sweep': '{key}' is no key of this recipe; write it as in dpo.fitting.learning_rate")
            place[path[-1]] = value
        if not stages:
            raise ValueError(f"'sweep': there is no stage '{kind}'")
        return type(self).model_validate(content)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; a packaged one also by its bare name. Raises UserError naming the file and the key."""
    import yaml

    path = located(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); `mcqa-train recipes` lists the packaged ones") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
    try:
        return Recipe.model_validate(content).model_copy(update={"folder": path.resolve().parent})
    except ValidationError as error:
        # A stage that is wrong is missing from the list of stages as well: that only follows.
        found = [dict(item) for item in error.errors()]
        own = [item for item in found if item["type"] != "too_short"] or found
        raise UserError(f"{path}: " + "; ".join(map(_explain, own))) from error


def packaged_recipes() -> list[Path]:
    """Return the recipe files that come with the package, by name."""
    return sorted((Path(__file__).parent / "recipes").glob("*.yaml"))


def located(path: Path) -> Path:
    """Return `path`, or the packaged recipe that it names where there is no such file."""
    if path.exists() or path.parent != Path():
        return path
    return next((packaged for packaged in packaged_recipes() if path.name in (packaged.name, packaged.stem)), path)


def find(recipe: Recipe, file: Path, data: Path | None, origin: str = "") -> Path:
    """Return where a file that the recipe names lies: in the data folder, or beside the recipe.

    Raises UserError that says what is missing and where its publisher has it.
    """
    places = [folder / file for folder in (data, recipe.folder) if folder is not None]
    for place in places:
        if place.exists():
            return place
    where = f"; it is published as {origin}" if origin else ""
    raise UserError(f"recipe {recipe.name}: no {' and no '.join(map(str, places))}{where}; name its folder with --data")


def _explain(item: dict[str, Any]) -> str:
    *parents, key = item["loc"] or ("the file",)
    place = ".".join(map(str, [*parents, key]))
    if item["type"] == "extra_forbidden":
        if key in _keys():
            return f"the key '{place}' does not belong there; `mcqa-train show smollm2-mcqa` prints a recipe that is whole"
        return f"unknown key '{place}'{did_you_mean(str(key), sorted(_keys()))}"
    if item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ") + (f" (in '{place}')" if item["loc"] else "")
    return f"'{place}': {item['msg']}" + (f" (found {item['input']!r})" if item["type"] != "missing" else "")


@cache
def _keys() -> frozenset[str]:
    """Return every key that a recipe may hold."""
    return frozenset(name for model in _models(Recipe) for name in model.model_fields if name != "folder")


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for info in kind.model_fields.values():
            yield from _models(info.annotation)
    elif get_origin(kind) is not None or kind is Union:
        for inner in get_args(kind):
            yield from _models(inner)
