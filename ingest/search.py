"""Ways to find passages: by meaning, by words, or by both. All are functions of one type."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeAlias

from ingest.embed import load_embedder
from ingest.store import Store

# (index, query, limit) → up to `limit` pairs of passage id and score, best first, ids distinct
SearchMethod: TypeAlias = Callable[[Store, str, int], list[tuple[str, float]]]

_CANDIDATES = 50  # how deep each ranking is read before two are fused
_RRF_K = 60  # Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet", SIGIR 2009


def dense(store: Store, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by the cosine similarity of their embedding to the query's."""
    return store.dense(load_embedder().encode([query])[0], limit)


def lexical(store: Store, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by BM25 over their words."""
    return store.lexical(query, limit)


def hybrid(store: Store, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by reciprocal rank fusion of `dense` and `lexical`."""
    depth = max(limit, _CANDIDATES)
    rankings = [[id_ for id_, _ in method(store, query, depth)] for method in (dense, lexical)]
    return list(islice(reciprocal_rank_fusion(rankings), limit))


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Fuse rankings of ids: each adds 1 / (60 + its rank, from 1). Ties keep the order of the first ranking."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


METHODS: dict[str, SearchMethod] = {"hybrid": hybrid, "dense": dense, "lexical": lexical}
