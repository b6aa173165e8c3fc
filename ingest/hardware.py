"""Which device and number format this machine computes in, chosen by what it really supports."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device() -> str:
    """Return "cuda" where PyTorch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(device: str) -> "torch.dtype":
    """Return the fastest dtype that `device` computes natively.

    bfloat16 needs instructions for it (AVX512-BF16 or AMX on a CPU): emulated, it is slower than float32.
    """
    import torch

    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


@cache
def cpu_has_bf16() -> bool:
    """Say whether this CPU multiplies bfloat16 matrices in hardware."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def limit_kernel_caches() -> None:
    """Keep the memory of a process that answers for long flat; to be called before anything is computed.

    On a CPU, PyTorch and oneDNN keep the compiled kernels of 1,024 shapes each, and nearly every row of questions has a length
    of its own: 350 MB after 400 answers. 64 are as fast (docs/log.md).
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")


@cache
def core_pool() -> ThreadPoolExecutor:
    """Return a pool with as many threads as PyTorch uses cores, in each of which it computes on one.

    A small model reads several batches side by side faster than one batch on all cores, which wait for each other after
    every operation.
    """
    import torch

    cores = torch.get_num_threads()
    ready = Barrier(cores + 1)

    def begin() -> None:
        torch.get_num_threads()  # PyTorch sets a thread up when it first asks, and would undo the next line then
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(cores, "mcqa-core", initializer=begin)
    for _ in range(cores):
        pool.submit(ready.wait)
    ready.wait()
    # The number is this thread's own, but also what threads that come later begin with.
    torch.set_num_threads(cores)
    ready.wait()
    return pool


def silence_transformers() -> None:
    """Keep transformers, and what it imports, from printing progress bars and advice over what the application prints."""
    import logging

    import transformers

    # Where they are installed, transformers imports them with the first model, and they complain about missing GPU parts.
    for noisy in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
