"""What the untrained model thinks of each answer: computed once for the same rows and weights, and kept on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assistant.locate import fingerprint
from assistant.model import LanguageModel
from assistant.packing import read
from assistant.scoring import Encoded, target_logprobs
from ingest.home import ensure_folder, home, write_atomically

if TYPE_CHECKING:
    import torch

_TOGETHER = 32  # rows that are read in one go


@dataclass(frozen=True, slots=True)
class References:
    """Log-likelihoods of each row's answers, shape (rows, answers) in nats; `reused` if they were there already."""

    logps: np.ndarray
    reused: bool


def references(lm: LanguageModel, rows: Sequence[Encoded], number: "torch.dtype") -> References:
    """Return how likely the untrained `lm` finds the answers of all rows, with products computed in `number`.

    They are kept in the data folder under a hash of everything they depend on: the rows' token ids, the weights, and how these
    are quantized and computed with. Under a launch with several processes, each computes its share.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from safetensors.numpy import load_file, save

    path = home() / "references" / f"{_key(lm, rows, number)}.safetensors"
    if all(gather_object([path.is_file()])):
        return References(load_file(path)["logps"], reused=True)
    state = PartialState()
    own = range(state.process_index, len(rows), state.num_processes)
    computed = gather_object(list(zip(own, _compute(lm, [rows[index] for index in own], number), strict=True)))
    logps = np.array([values for _, values in sorted(computed)], dtype=np.float32).reshape(len(rows), -1)
    if state.is_local_main_process:
        ensure_folder(path.parent)
        write_atomically(path, save({"logps": logps}))
    state.wait_for_everyone()
    return References(logps, reused=False)


def _key(lm: LanguageModel, rows: Sequence[Encoded], number: "torch.dtype") -> str:
    digest = hashlib.sha256(fingerprint(Path(lm.model.name_or_path)).encode())
    digest.update(f"1 {lm.quantization} {lm.dtype} {number} {lm._packs}".encode())
    for row in rows:
        digest.update(repr((row.prefix, row.continuations)).encode())
    return digest.hexdigest()


def _compute(lm: LanguageModel, rows: Sequence[Encoded], number: "torch.dtype") -> list[list[float]]:
    import torch

    rounds = number != torch.float32
    # In 16 bits, an answer read in another way differs by some tenths of a nat, which would pass for a reward: rows are read
    # one by one, exactly as in training. In single precision nothing is lost by reading several side by side.
    step = 1 if rounds else _TOGETHER
    found: list[list[float]] = []
    with torch.inference_mode(), torch.autocast(lm.device.type, dtype=number, enabled=rounds):
        for begin in range(0, len(rows), step):
            items = rows[begin : begin + step]
            found += read(lm, items, lambda index, logs, items=items: _sums(items[index], logs))  # type: ignore[misc]
    return found


def _sums(row: Encoded, logs: "Sequence[torch.Tensor]") -> list[float]:
    """Return the log-likelihood of each answer, given its tokens' distributions."""
    return [float(of_answer.sum()) for of_answer in target_logprobs(row, logs)]
