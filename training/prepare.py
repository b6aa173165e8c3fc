"""Preference data → training and held-out parts: mixed, filtered and split so that no prompt stands on two sides."""

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ingest.errors import UserError
from training.filters import Filters, Removed, added, filter_repeats, filter_rows
from training.pairs import Layout, Pair, PairRow, fingerprint, prompt_key


class Preparation(BaseModel):
    """How pairs become parts: `split` holds the shares of train and test, or of train, valid and test, in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: tuple[float, ...] = (80, 20)
    split_by: Literal["prompt", "row"] = "prompt"
    seed: int = 0
    filters: Filters = Field(default_factory=Filters)


@dataclass(frozen=True, slots=True)
class Share:
    """A source and how much of it to use: a number of pairs, a fraction, or all where both are None."""

    path: Path
    fraction: float | None = None
    count: int | None = None


@dataclass(slots=True)
class Source:
    """One file as it was read: its pairs, its bad rows, and what the card says of it."""

    name: str
    size: int
    sha256: str
    pairs: list[Pair] = field(default_factory=list)
    bad: list[PairRow] = field(default_factory=list)
    layouts: Counter[Layout] = field(default_factory=Counter)
    share: float | int | None = None
    used: int = 0

    @property
    def rows(self) -> int:
        """How many rows were read, the bad ones included."""
        return len(self.pairs) + len(self.bad)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pairs of each part ("train", perhaps "valid", "test"), what they came from, and what was left out on the way."""

    parts: dict[str, list[Pair]]
    sources: tuple[Source, ...]
    removed: tuple[Removed, ...]
    preparation: Preparation


def parse_share(text: str) -> Share:
    """Read `PATH`, `PATH=0.6` (a fraction) or `PATH=5000` (a number of pairs); raises UserError on a share of nothing.

    A path may hold "=": only a number after the last one is a share, and a file of the whole name goes before that.
    """
    match = re.fullmatch(r"(.+)=(\d+|\d*\.\d+)", text, re.DOTALL)
    if match is None or Path(text).exists():
        return Share(Path(text))
    path, number = Path(match[1]), match[2]
    if "." in number:
        if not 0 < float(number) <= 1:
            raise UserError(f"{text}: a fraction is above 0 and at most 1; write a whole number for a number of pairs")
        return Share(path, fraction=float(number))
    if int(number) < 1:
        raise UserError(f"{text}: use at least one pair, or leave the source out")
    return Share(path, count=int(number))


def parse_split(text: str) -> tuple[float, ...]:
    """Read "80/20" (train/test) or "75/12.5/12.5" (train/valid/test), in percent; raises UserError on anything else."""
    try:
        shares = tuple(float(part) for part in text.split("/"))
    except ValueError:
        shares = ()
    if len(shares) not in (2, 3) or not all(share > 0 for share in shares) or abs(sum(shares) - 100) > 1e-6:
        raise UserError(f"'{text}' is no split; write the percentages of two or three parts, as in 80/20 or 75/12.5/12.5")
    return shares


def load(share: Share, rows: Iterable[PairRow]) -> Source:
    """Gather the `rows` that a reader yields of the file `share.path`. Raises UserError where it cannot be read."""
    try:
        with share.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        source = Source(share.path.name, share.path.stat().st_size, digest)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {share.path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{share.path} is a folder; give a file in it") from error
    except OSError as error:
        raise UserError(f"{share.path} cannot be read ({error.strerror})") from error
    source.share = share.fraction if share.count is None else share.count
    for row in rows:
        if row.pair is None:
            source.bad.append(row)
        else:
            source.pairs.append(row.pair)
        if row.layout is not None:
            source.layouts[row.layout] += 1
    return source


def prepare(sources: Sequence[Source], preparation: Preparation) -> Prepared:
    """Filter, mix and split the pairs of `sources`; `used` of each source is set to the number of pairs drawn from it.

    A source's share is drawn from its pairs that pass the filters of single rows; those that compare rows then run over all
    sources. All choices follow from the seed and from what the pairs say, so that the order of equal files and rows does not
    matter. Raises UserError where no pair is left, or too few prompts to split.
    """
    removed: list[Removed] = []
    drawn: list[Pair] = []
    for source in sources:
        kept, gone = filter_rows(in_random_order(source.pairs, preparation.seed), preparation.filters)
        removed += gone
        part = kept[: _wanted(source.share, len(kept))]
        source.used = len(part)
        drawn += part
    kept, gone = filter_repeats(in_random_order(drawn, preparation.seed), preparation.filters)
    removed += gone
    totals = added(removed)
    if not kept:
        raise UserError(f"no pair is left of {', '.join(source.name for source in sources)}: {_why_none(sources, totals)}")
    parts = split(kept, preparation.split, preparation.seed, preparation.split_by)
    names = ("train", "test") if len(parts) == 2 else ("train", "valid", "test")
    return Prepared(dict(zip(names, parts, strict=True)), tuple(sources), tuple(totals), preparation)


def _why_none(sources: Sequence[Source], removed: Sequence[Removed]) -> str:
    bad = [f"{source.name} row {row.line}: {row.error}" for source in sources for row in source.bad]
    reasons = [f"{len(bad)} cannot be used (the first, {bad[0]})"] if bad else []
    reasons += [f"{one.count} left out as {one.filter}" for one in removed if one.count]
    return "; ".join(reasons) or "no rows"


def in_random_order(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return the pairs in an order that depends on the seed and on them alone, not on the order they came in."""
    return sorted(pairs, key=lambda pair: (fingerprint(pair, seed), pair.source, pair.line))


def _wanted(share: float | int | None, available: int) -> int:
    if share is None:
        return available
    return min(share, available) if isinstance(share, int) else max(1, round(share * available))


def split(
    pairs: Sequence[Pair], shares: Sequence[float], seed: int = 0, by: Literal["prompt", "row"] = "prompt"
) -> list[list[Pair]]:
    """Return the pairs in as many parts as there are shares (percent), in their order; all pairs of a prompt in one part.

    By "row" the prompts are not looked at. Which part a prompt falls into depends on the seed and on the prompts there are,
    not on the order of the pairs. A part's size misses its share by half of the largest group at most, but no part stays
    empty. Raises UserError where there are fewer prompts (or rows) than parts.
    """
    groups: dict[str, list[int]] = {}
    for at, pair in enumerate(pairs):
        groups.setdefault(prompt_key(pair) if by == "prompt" else f"{fingerprint(pair)} {pair.source} {pair.line}", []).append(
            at
        )
    if len(groups) < len(shares):
        found = f"{len(groups)} {by}{'' if len(groups) == 1 else 's'}"
        raise UserError(f"{found} cannot be split into {len(shares)} parts; give more data or a split of fewer parts")
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    bounds = list(accumulate(shares))[:-1]
    part_of = [0] * len(pairs)
    done, part = 0, -1
    for place, key in enumerate(order):
        # A group goes where its middle falls, yet skips no part and leaves one group at least to each part after it.
        size = len(groups[key])
        wanted = bisect_right(bounds, 100 * (done + size / 2) / len(pairs))
        part = max(min(wanted, part + 1), len(shares) - (len(order) - place))
        for at in groups[key]:
            part_of[at] = part
        done += size
    return [[pair for pair, its in zip(pairs, part_of, strict=True) if its == part] for part in range(len(shares))]
