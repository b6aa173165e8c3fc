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
        self.embed_all([query])
        return self._vectors[query]

    def embed_all(self, queries: Sequence[str]) -> None:
        """Embed several queries at once, which is faster than one after the other."""
        new = [query for query in queries if query not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.embedder.encode(new), strict=True))


# (index, query, limit) → up to `limit` pairs of passage id and score, best first, ids distinct
SearchMethod: TypeAlias = Callable[[Index, str, int], list[tuple[str, float]]]

CANDIDATES = 50  # how deep each ranking is read before two are fused
# Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet", SIGIR 2009, have 60; the two best rankings
# of a small index deserve more trust in their first places (docs/log.md).
_RRF_K = 10
_OPTIONS = 0.5  # what the rankings for single options weigh together, where that for all of them weighs 1


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


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Fuse rankings of ids: each adds its weight (1) / (10 + its rank, from 1). Ties go to the smaller id."""
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + weight / (_RRF_K + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


METHODS: dict[str, SearchMethod] = {"hybrid": hybrid, "dense": dense, "euclidean": euclidean, "lexical": lexical}


def for_each_option(
    method: SearchMethod, index: Index, question: str, options: Sequence[str], limit: int
) -> list[tuple[str, float]]:
    """Rank passages for the question with all its options and with each of them, and fuse the rankings.

    Where `limit` leaves room for the others, the best passage of each option is among the first `limit`, in the last places
    if it is nowhere better: what speaks for an option that the rest of the question leads away from is seen, too.
    """
    queries = ["\n".join((question, *options)), *(f"{question}\n{option}" for option in options)]
    if method is not lexical:
        index.embed_all(queries)
    rankings = [[id_ for id_, _ in method(index, query, CANDIDATES)] for query in queries]
    fused = reciprocal_rank_fusion(rankings, [1.0, *[_OPTIONS / len(options)] * len(options)])
    if limit <= len(options):
        return fused
    best = {ranking[0] for ranking in rankings[1:] if ranking}
    missing = [pair for pair in fused[limit:] if pair[0] in best]
    # What gives way to them may itself be the best for an option, and stays.
    others = [pair for pair in fused[:limit] if pair[0] not in best]
    given_up = others[len(others) - len(missing) :]
    rest = [pair for pair in fused[limit:] if pair not in missing]
    return [*(pair for pair in fused[:limit] if pair not in given_up), *missing, *given_up, *rest]


def evidence(index: Index, question: str, options: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return for each option the best score of a passage for question + option: by words (BM25) and by meaning (cosine).

    An option that the index says most about is often the right one, without any language model.
    """
    queries = [f"{question}\n{option}" for option in options]
    index.embed_all(queries)
    by_words = [next((found for _, found in lexical(index, query, 1)), 0.0) for query in queries]
    by_meaning = [next((found for _, found in dense(index, query, 1)), 0.0) for query in queries]
    return tuple(by_words), tuple(by_meaning)


def signals(index: Index, query: str, passages: Sequence[Passage]) -> list[tuple[float, float]]:
    """Return for each passage its cosine similarity to `query`, and the share of the query's words that stand in it.

    Words count by their rarity in the index. A query without words gives zeros.
    """
    words = search_terms(query)
    if not passages or not words:
        return [(0.0, 0.0)] * len(passages)
    similarity = index.store.similarities(index.embed(query), [passage.id for passage in passages])
    total, counts = index.store.frequencies(words)
    weights = {word: math.log1p(total / (1 + counts.get(word, 0))) for word in words}
    whole = sum(weights.values())
    results = []
    for passage in passages:
        present = set(terms(passage.text))
        covered = sum(weight for word, weight in weights.items() if word in present) / whole
        results.append((similarity.get(passage.id, 0.0), covered))
    return results


def relevances(index: Index, query: str, passages: Sequence[Passage]) -> list[float]:
    """Return for each passage how probably it belongs to what `query` asks about, from 0 to 1.

    Unlike the scores of a search this can be compared between queries and courses.
    """
    return [relevance(*signal) for signal in signals(index, query, passages)]


# Fitted on the questions of four textbooks, each asked of its own book and of the others:
# benchmarks/retrieval.py --textbooks --relevance.
_INTERCEPT, _BY_COSINE, _BY_COVERAGE = -9.9, 14.0, 8.0
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
