"""What is left out of preference data, and how much of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from training.near import near_duplicates
from training.pairs import Pair, fingerprint, prompt_key

_EXAMPLES = 3


class Filters(BaseModel):
    """Which pairs to leave out. Ties, empty and identical completions and exact duplicates always go.

    - supported: keep labels only whose winner wins at least one criterion too (course labels; others name no criteria)
    - max_words, max_characters: how long the prompt and the longer completion may be together
    - near_duplicates: the similarity from which on a pair repeats an earlier one; see `near.near_duplicates`
    - per_prompt: how many pairs one prompt may have
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    supported: bool = False
    max_words: int | None = Field(default=None, ge=1)
    max_characters: int | None = Field(default=None, ge=1)
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    per_prompt: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Removed:
    """What one filter took out: how many pairs, and where the first of them stood."""

    filter: str
    count: int
    examples: tuple[str, ...]


def filter_rows(pairs: Sequence[Pair], filters: Filters) -> tuple[list[Pair], list[Removed]]:
    """Return the pairs that are fit for training by themselves, and what each filter removed."""
    tests: list[tuple[str, Callable[[Pair], bool]]] = [
        ("tie", lambda pair: pair.tied),
        ("empty", lambda pair: not pair.chosen.strip() or not pair.rejected.strip()),
        ("identical", lambda pair: " ".join(pair.chosen.split()) == " ".join(pair.rejected.split())),
    ]
    if filters.supported:
        tests.append(("unsupported", lambda pair: not is_supported(pair)))
    if (most := filters.max_words) is not None:
        tests.append(("too many words", lambda pair: _longest(pair, lambda text: len(text.split())) > most))
    if (limit := filters.max_characters) is not None:
        tests.append(("too many characters", lambda pair: _longest(pair, len) > limit))
    return _apply(pairs, tests)


def filter_repeats(pairs: Sequence[Pair], filters: Filters) -> tuple[list[Pair], list[Removed]]:
    """Return the pairs without those that repeat earlier ones, and what each filter removed."""
    seen: set[str] = set()
    kept, removed = _apply(pairs, [("duplicate", lambda pair: not _is_new(fingerprint(pair), seen))])
    if filters.near_duplicates is not None:
        repeats = set(near_duplicates(kept, filters.near_duplicates))
        removed.append(_removed("near duplicate", [kept[at] for at in sorted(repeats)]))
        kept = [pair for at, pair in enumerate(kept) if at not in repeats]
    if (most := filters.per_prompt) is not None:
        counts: Counter[str] = Counter()

        def is_over(pair: Pair) -> bool:
            key = prompt_key(pair)
            counts[key] += 1
            return counts[key] > most

        kept, more = _apply(kept, [("too many for the prompt", is_over)])
        removed += more
    return kept, removed


def is_supported(pair: Pair) -> bool:
    """Return whether the pair's winner wins a criterion as well; always where its layout names no criteria."""
    return pair.criteria is None or any(label == "chosen" for _, label in pair.criteria)


def added(removed: Iterable[Removed]) -> list[Removed]:
    """Return one entry for each filter, with what it removed in all."""
    together: dict[str, Removed] = {}
    for one in removed:
        before = together.get(one.filter, Removed(one.filter, 0, ()))
        examples = (*before.examples, *one.examples)[:_EXAMPLES]
        together[one.filter] = Removed(one.filter, before.count + one.count, examples)
    return list(together.values())


def _apply(pairs: Sequence[Pair], tests: Sequence[tuple[str, Callable[[Pair], bool]]]) -> tuple[list[Pair], list[Removed]]:
    """Return the pairs that no test holds for; each of the others counts for the first test that does."""
    kept: list[Pair] = []
    gone: dict[str, list[Pair]] = {name: [] for name, _ in tests}
    for pair in pairs:
        name = next((name for name, test in tests if test(pair)), None)
        (kept if name is None else gone[name]).append(pair)
    return kept, [_removed(name, found) for name, found in gone.items()]


def _removed(name: str, pairs: Sequence[Pair]) -> Removed:
    return Removed(name, len(pairs), tuple(pair.place for pair in pairs[:_EXAMPLES]))


def _is_new(key: str, seen: set[str]) -> bool:
    size = len(seen)
    seen.add(key)
    return len(seen) > size


def _longest(pair: Pair, measure: Callable[[str], int]) -> int:
    return sum(measure(message.content) for message in pair.prompt) + max(measure(pair.chosen), measure(pair.rejected))
