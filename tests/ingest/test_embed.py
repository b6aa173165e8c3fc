"""The embedder: the same vectors however many texts come at once, and threads that leave others theirs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from ingest.embed import load_embedder
from ingest.hardware import core_pool

TEXTS = [
    f"Passage {number} is about page tables. {'It says more about frames and faults. ' * (number % 9)}" for number in range(90)
]


def test_many_texts_get_the_vectors_that_each_gets_alone() -> None:
    embedder = load_embedder()
    many = embedder.encode(TEXTS)
    assert many.shape == (90, 384)
    assert many.dtype == np.float32
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    assert (many * alone).sum(axis=1).min() > 0.999
    assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)


def test_the_vectors_are_those_of_sentence_transformers() -> None:
    embedder = load_embedder()
    assert isinstance(embedder._model, SentenceTransformer)
    long = "A page table maps pages to frames. " * 60  # more than the model reads: cut alike
    expected = embedder._model.encode([*TEXTS[:10], long], convert_to_numpy=True).astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)  # in 16 bits it would be off by some thousandths
    assert (embedder.encode([*TEXTS[:10], long]) * expected).sum(axis=1).min() > 0.999


def test_threads_that_embed_use_one_core_each_and_leave_the_others_to_others() -> None:
    before = torch.get_num_threads()
    pool = core_pool()
    assert set(pool.map(lambda _: torch.get_num_threads(), range(4 * before))) == {1}
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as later:  # a thread that comes later begins with all cores
        assert later.submit(torch.get_num_threads).result() == before
