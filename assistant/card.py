"""A model's card: how it wants to be asked, and what is known of it."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingest.errors import ModelError

CARD_FILE = "mcqa.json"
ScoringKind = Literal["letter", "cloze"]
Normalization = Literal["sum", "token", "byte", "pmi"]
EvidenceKind = Literal["passage", "statement", "sentence", "nearby", "sums_up"]
EVIDENCE: tuple[EvidenceKind, ...] = get_args(EvidenceKind)


class Measured(BaseModel):
    """An accuracy that was measured: on what, of how many questions, how many were right, and by which command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: str
    n: int = Field(gt=0)
    right: int = Field(ge=0)
    command: str = ""


class Template(BaseModel):
    """The pieces that a prompt is put together from, in this order; a word in braces is where a text goes.

    `start` stands once in front of everything, solved examples included (an instruction, say). Options are listed for `letter`
    scoring always, for `cloze` if `lists_options`. The answer follows the last piece after a space. With `turns_negation`,
    `cloze` asks what is not so in plain form (assistant.negation), and its scores are turned round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str = ""
    passage: str = "{passage}\n\n"
    question: str = "Question: {question}\n"
    option: str = "{letter}. {option}\n"
    answer: str = "Answer:"
    lists_options: bool = False
    turns_negation: bool = False

    @model_validator(mode="after")
    def _is_complete(self) -> "Template":
        for piece, names in {"passage": ["passage"], "question": ["question"], "option": ["letter", "option"]}.items():
            for name in names:
                if getattr(self, piece).count(f"{{{name}}}") != 1:
                    raise ValueError(f"'{piece}' needs {{{name}}} once")
        if not self.answer.strip() or self.answer != self.answer.rstrip():
            raise ValueError("'answer' must end in something else than white space")
        return self


class Card(BaseModel):
    """How a model wants to be asked, and what is known of it; kept as `mcqa.json` in its folder.

    `template` is how prompts are put together. `normalization` is what an option's log-likelihood is divided by under `cloze`
    (assistant.scoring.score). `passages` is how many retrieved passages the prompt shows. Scores are divided by `temperature`
    before the softmax. `evidence_weights` is what each kind of evidence (assistant.evidence) then counts beside them, empty
    where it does not help. `letter_priors` maps a number of options to how much the model prefers each letter, in
    log-probabilities (assistant.debias). `base` and `base_sha256` say which model an adapter was trained on,
    `base_quantization` how that was quantized meanwhile. `tokenizer`, for a model that comes without one, is a folder
    (relative to the model's, if it is there) or a Hub name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scoring: ScoringKind = "letter"
    normalization: Normalization = "token"
    template: Template = Template()
    passages: int = Field(default=3, ge=0, le=50)
    temperature: float = Field(default=1.0, gt=0)
    evidence_weights: dict[EvidenceKind, float] = Field(default_factory=dict)
    letter_priors: dict[int, tuple[float, ...]] = Field(default_factory=dict)
    base: str = ""
    base_sha256: str = ""
    base_quantization: Literal["none", "int8", "nf4"] = "none"
    tokenizer: str = ""
    training_data: str = ""
    accuracy: tuple[Measured, ...] = ()


def read_card(path: Path, otherwise: Card | None = None) -> Card:
    """Return the card in the file `path`, `otherwise` (the default card) if there is none; raises ModelError on a bad one."""
    if not path.is_file():
        return otherwise or Card()
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path}: {place}: {first['msg']}") from error
