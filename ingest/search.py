"""Ways to find passages: by meaning, by words, or by both. All are functions of one type."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

import numpy as np

from ingest.embed import Embedder
from ingest.store import EVERYTHING, Filter, Passage, Store
from ingest.words import search_terms, sentences, terms


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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an index says for each option of a question, one number an option; without any language model.

    `passage`: how near the nearest passage is to question and option (cosine similarity), and 0.3 times the share of the
    question's words in it times that of the option's. `statement`: the same of the nearest sentence, among those that share
    most words with question and an option. `sentence`: the best BM25 score of a sentence for question and option. `nearby`:
    the largest share of the option's words in one of the five passages that are nearest to the question alone. Shares count
    words by their rarity in the index.
    """

    passage: tuple[float, ...]
    statement: tuple[float, ...]
    sentence: tuple[float, ...]
    nearby: tuple[float, ...]


_EACH = 10  # passages that each way of search gives for an option
_ABOUT, _NEARBY = 20, 5  # passages about the question that are looked at, and those that count as near
_STATEMENTS = 4  # sentences that share most words with an option and the question, whose meaning is looked at
_COVERED = 0.3  # what the product of both shares of words weighs beside the cosine
_EITHER = 0.3  # ... and their sum beside the product
_K1, _B = 1.2, 0.75  # BM25 as in SQLite's FTS5


def evidence(index: Index, question: str, options: Sequence[str]) -> Evidence:
    """Return what speaks for each option in the passages that question and options find."""
    queries = [f"{question}\n{option}" for option in options]
    index.embed_all([question, *queries])
    about = [id_ for id_, _ in hybrid(index, question, _ABOUT)]
    found = [id_ for query in queries for method in (dense, lexical) for id_, _ in method(index, query, _EACH)]
    passages = index.store.passages(list(dict.fromkeys([*about, *found])))
    asked = set(terms(question))
    # What an option adds to the question; of one that only repeats its words, all of them.
    added = [words - asked or words for words in (set(terms(option)) for option in options)]
    rarity = _rarities(index.store, asked.union(*added))

    parts_of = {id_: sentences(passage.text) for id_, passage in passages.items()}
    told = {part: Counter(terms(part)) for parts in parts_of.values() for part in parts}
    words_of = {id_: set().union(*(told[part] for part in parts)) for id_, parts in parts_of.items()}
    mean = sum(part.total() for part in told.values()) / max(1, len(told))

    def bm25(part: Counter[str]) -> list[float]:
        """Return a sentence's score for the question with each option."""
        penalty = _K1 * (1 - _B + _B * part.total() / mean)

        def of(words: Collection[str]) -> float:
            return sum(rarity[w] * part[w] * (_K1 + 1) / (part[w] + penalty) for w in words if w in part)

        of_question = of(asked)
        return [of_question + of(words - asked) for words in added]

    def shares(texts: Collection[Collection[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of the question's words in each text, and of what each option adds, shape (options, texts)."""
        of_options = [[_covered(rarity, words, text) for text in texts] for words in added]
        return np.array([_covered(rarity, asked, text) for text in texts]), np.array(of_options)

    def nearest(cosines: np.ndarray, of_question: np.ndarray, of_options: np.ndarray) -> tuple[float, ...]:
        """Return for each option how near the nearest text is; of_options and cosines have shape (options, texts)."""
        return tuple(map(float, (cosines + _COVERED * of_question * of_options).max(axis=1)))

    wanted = np.stack([index.embed(query) for query in queries])
    near = index.store.similarities(wanted, list(passages))
    if not near or not told:
        nothing = (0.0,) * len(options)
        return Evidence(nothing, nothing, nothing, nothing)
    # Sentences have no stored vectors, so that only the most promising are looked at; sorting keeps the order of equal ones.
    of_question, of_options = shares(told.values())
    promise = of_question * of_options + _EITHER * (of_question + of_options)
    places = sorted({int(place) for row in promise for place in np.argsort(-row, kind="stable")[:_STATEMENTS]})
    texts = list(told)
    statements = [texts[place] for place in places]
    index.embed_all(statements)
    meant = wanted @ np.stack([index.embed(text) for text in statements]).T
    by_sentence = [bm25(part) for part in told.values()]
    closest = [words_of[id_] for id_ in about[:_NEARBY] if id_ in words_of]
    return Evidence(
        passage=nearest(np.stack(list(near.values()), axis=1), *shares([words_of[id_] for id_ in near])),
        statement=nearest(meant, of_question[places], of_options[:, places]),
        sentence=tuple(max(row[n] for row in by_sentence) for n in range(len(added))),
        nearby=tuple(max((_covered(rarity, words, text) for text in closest), default=0.0) for words in added),
    )


def _covered(weights: Mapping[str, float], words: Collection[str], text: Collection[str]) -> float:
    """Return the share of `words`, by their weights, that stand in `text`; 0 where they weigh nothing."""
    whole = sum(weights[word] for word in words)
    return sum(weights[word] for word in words if word in text) / whole if whole else 0.0


def _rarities(store: Store, words: Collection[str]) -> dict[str, float]:
    """Return for each word how rarely it stands in a passage: BM25's inverse document frequency, never negative."""
    total, counts = store.frequencies(list(words))
    return {word: math.log(1 + (total - counts.get(word, 0) + 0.5) / (counts.get(word, 0) + 0.5)) for word in words}


def signals(index: Index, query: str, passages: Sequence[Passage]) -> list[tuple[float, float]]:
    """Return for each passage its cosine similarity to `query`, and the share of the query's words that stand in it.

    Words count by their rarity in the index. A query without words gives zeros.
    """
    words = search_terms(query)
    if not passages or not words:
        return [(0.0, 0.0)] * len(passages)
    similarity = index.store.similarities(index.embed(query)[None], [passage.id for passage in passages])
    total, counts = index.store.frequencies(words)
    weights = {word: math.log1p(total / (1 + counts.get(word, 0))) for word in words}
    results = []
    for passage in passages:
        covered = _covered(weights, weights, set(terms(passage.text)))
        results.append((float(similarity[passage.id][0]) if passage.id in similarity else 0.0, covered))
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
