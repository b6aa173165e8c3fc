"""Ways to find passages: by meaning, by words, or by both. All are functions of one type."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

import numpy as np

from ingest.embed import Embedder
from ingest.store import EVERYTHING, Filter, Passage, Store
from ingest.words import search_terms, terms


@dataclass(frozen=True, slots=True)
class Index:
    """What a search works on: the store, the embedder that its vectors came from, and the passages it may return."""

    store: Store
    embedder: Embedder
    where: Filter = EVERYTHING
    _vectors: dict[str, np.ndarray] = field(default_factory=dict)  # a query is embedded once, however often it is used

    def embed(self, query: str) -> np.ndarray:
        """Return the query's vector, float32 of length 1."""
        if query not in self._vectors:
            self._vectors[query] = self.embedder.encode([query])[0]
        return self._vectors[query]


# (index, query, limit) → up to `limit` pairs of passage id and score, best first, ids distinct
SearchMethod: TypeAlias = Callable[[Index, str, int], list[tuple[str, float]]]

CANDIDATES = 50  # how deep each ranking is read before two are fused
_RRF_K = 60  # Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet", SIGIR 2009


def dense(index: Index, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by the cosine similarity of their embedding to the query's."""
    return index.store.dense(index.embed(query), limit, index.where)


def euclidean(index: Index, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by the Euclidean distance of their embedding to the query's; the score is the distance, negated.

    All vectors have length 1, where the squared distance is 2 - 2 cos: the order is that of `dense`.
    """
    return [(id_, -math.sqrt(max(0.0, 2 - 2 * cosine))) for id_, cosine in dense(index, query, limit)]


def lexical(index: Index, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by BM25 over their words."""
    return index.store.lexical(query, limit, index.where)


def hybrid(index: Index, query: str, limit: int) -> list[tuple[str, float]]:
    """Rank passages by reciprocal rank fusion of `dense` and `lexical`."""
    depth = max(limit, CANDIDATES)
    rankings = [[id_ for id_, _ in method(index, query, depth)] for method in (dense, lexical)]
    return list(islice(reciprocal_rank_fusion(rankings), limit))


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Fuse rankings of ids: each adds 1 / (60 + its rank, from 1). Ties go to the smaller id, so that order is certain."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


METHODS: dict[str, SearchMethod] = {"hybrid": hybrid, "dense": dense, "euclidean": euclidean, "lexical": lexical}


def for_each_option(method: SearchMethod, index: Index, question: str, options: Sequence[str]) -> list[tuple[str, float]]:
    """Rank passages for question + option, for each option, and for all of them together, and fuse the rankings.

    A passage that is the best for one option and says nothing of the others stands high in such a ranking.
    """
    queries = ["\n".join((question, *options)), *(f"{question}\n{option}" for option in options)]
    return reciprocal_rank_fusion([[id_ for id_, _ in method(index, query, CANDIDATES)] for query in queries])


def relevances(index: Index, query: str, passages: Sequence[Passage]) -> list[float]:
    """Return for each passage how probably it belongs to what `query` asks about, from 0 to 1.

    Unlike the scores of a search this can be compared between queries and courses. It is a logistic function of the cosine
    similarity and of the share of the query's words, weighted by their rarity in the index, that stand in the passage.
    """
    words = search_terms(query)
    if not passages or not words:
        return [0.0] * len(passages)
    similarity = index.store.similarities(index.embed(query), [passage.id for passage in passages])
    total, counts = index.store.frequencies(words)
    weights = {word: math.log1p(total / (1 + counts.get(word, 0))) for word in words}
    whole = sum(weights.values())
    results = []
    for passage in passages:
        present = set(terms(passage.text))
        covered = sum(weight for word, weight in weights.items() if word in present) / whole
        results.append(relevance(similarity.get(passage.id, 0.0), covered))
    return results


# Fitted on questions of four textbooks, each asked of its own book (related) and of the others (unrelated):
# benchmarks/relevance.py.
_INTERCEPT, _BY_COSINE, _BY_COVERAGE = -9.0, 12.0, 8.0
RELEVANT = 0.5  # below it, a course most probably holds nothing about the question


def relevance(cosine: float, covered: float) -> float:
    """Return the relevance of a passage with that cosine similarity and that share of the query's words."""
    return 1 / (1 + math.exp(-(_INTERCEPT + _BY_COSINE * cosine + _BY_COVERAGE * covered)))


_NEAR_DUPLICATE = 0.8  # share of common words from which two passages say the same


def without_near_duplicates(passages: Sequence[Passage]) -> list[Passage]:
    """Return `passages` without those whose words are nearly those of an earlier one (Jaccard index of at least 0.8)."""
    kept: list[tuple[Passage, set[str]]] = []
    for passage in passages:
        words = set(terms(passage.text))
        if not any(len(words & other) >= _NEAR_DUPLICATE * len(words | other) for _, other in kept):
            kept.append((passage, words))
    return [passage for passage, _ in kept]
