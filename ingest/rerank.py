"""Optional re-ranking of what a search found, by a cross-encoder that reads question and passage together."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ingest.errors import ModelError, brief
from ingest.hardware import pick_device, silence_transformers


@lru_cache(maxsize=2)
def load_reranker(name: str) -> Any:
    """Load the sentence-transformers CrossEncoder `name`, a folder or a Hub name; raises ModelError where it cannot be."""
    silence_transformers()
    from sentence_transformers import CrossEncoder

    try:
        return CrossEncoder(
            name, device=pick_device(), trust_remote_code=False, model_kwargs={"use_safetensors": True}, num_labels=1
        )
    except Exception as error:  # the library raises many kinds for one cause
        raise ModelError(
            f"cannot load the re-ranking model '{name}' ({brief(error, 160)}); "
            "give a folder with a cross-encoder's config and safetensors weights, or a Hub name where there is a network"
        ) from error


def rerank(name: str, query: str, texts: Sequence[str]) -> list[float]:
    """Return the score that the cross-encoder `name` gives each of `texts` for `query`; higher is better."""
    if not texts:
        return []
    scores = load_reranker(name).predict([(query, text) for text in texts], show_progress_bar=False)
    return [float(score) for score in np.asarray(scores, dtype=np.float64).reshape(len(texts), -1)[:, -1]]
