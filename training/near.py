"""Pairs that say almost the same in almost the same words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training.pairs import Pair, normalize

if TYPE_CHECKING:
    import numpy as np

    Grams = np.ndarray[Any, np.dtype[np.int64]]

_WORDS = 5  # in a gram


def near_duplicates(pairs: Sequence[Pair], threshold: float) -> list[int]:
    """Return, in order, the places of the pairs that nearly repeat an earlier one that is kept.

    Two pairs are near duplicates where the 5-word sequences of their prompts have a Jaccard similarity of `threshold` (0 to 1)
    or more, and those of their completions too; words are told apart by `normalize`. The result is exact: an inverted index
    over each pair's rarest sequences finds all that can be so similar ("prefix filter", Chaudhuri, Ganti and Kaushik 2006),
    and each find is then measured.
    """
    import numpy as np

    prompts, completions = _grams(pairs)
    found: list[int] = []
    index: dict[int, list[int]] = {}
    for at in range(len(pairs)):
        grams = np.sort(np.concatenate((prompts[at], completions[at])))
        # Where two sets are that similar, their rarest grams, so many of each, have at least one in common. Numbers below
        # 0 belong to grams that stand in one pair only, which nothing can share.
        rare = [gram for gram in grams[: len(grams) - int(np.ceil(threshold * len(grams) - 1e-9)) + 1].tolist() if gram >= 0]
        candidates = dict.fromkeys(other for gram in rare for other in index.get(gram, ()))
        if any(
            _similar(prompts[at], prompts[other], threshold) and _similar(completions[at], completions[other], threshold)
            for other in candidates
        ):
            found.append(at)
        else:
            for gram in rare:
                index.setdefault(gram, []).append(at)
    return found


def _similar(one: "Grams", other: "Grams", threshold: float) -> bool:
    import numpy as np

    if min(len(one), len(other)) < threshold * max(len(one), len(other)) - 1e-9:
        return False
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared >= threshold * (len(one) + len(other) - shared) - 1e-9


def _grams(pairs: Sequence[Pair]) -> tuple[list["Grams"], list["Grams"]]:
    """Return each pair's grams in its prompt and in its completions: numbers that grow with how many pairs have the gram.

    A gram of one pair only has a number below 0.
    """
    import numpy as np

    words: dict[str, int] = {}
    sets: list[Grams] = []
    for pair in pairs:
        prompt = "\n".join(message.content for message in pair.prompt)
        sets.append(np.array(_hashes(prompt, words, 0), dtype=np.int64))
        both = _hashes(pair.chosen, words, 1) + _hashes(pair.rejected, words, 2)
        sets.append(np.array(both, dtype=np.int64))
    if not sets:
        return [], []
    _, which, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rank -= int((counts == 1).sum())
    numbered = rank[which]
    ends = np.cumsum([len(grams) for grams in sets])
    split = np.split(numbered, ends[:-1])
    return split[::2], split[1::2]


def _hashes(text: str, words: dict[str, int], part: int) -> list[int]:
    """Return a 64-bit hash of each of the text's grams; a text of fewer words is one gram. `part` keeps equal texts apart."""
    numbers = [words.setdefault(word, len(words)) for word in normalize(text).split()]
    # Hashes of numbers, unlike those of texts, are the same in every process.
    grams = set(zip(*(numbers[start:] for start in range(_WORDS)), strict=False)) or {tuple(numbers)}
    return list({hash((part, *gram)) for gram in grams})
