"""Prepared pairs → a folder: the parts as TRL reads them, and a card that says what they are."""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ingest.errors import UserError
from ingest.home import replaced_folder
from training.pairs import Message, Pair, prompt_key
from training.prepare import Prepared, Source

CARD = "card.json"
_REASONS = 5  # bad rows of a source that the card names


def check_output(output: Path, sources: Sequence[Path], force: bool) -> None:
    """Raise UserError where `output` must not be written: it exists, and `force` may replace what was prepared before only."""
    if not output.exists():
        return
    if not force:
        raise UserError(f"{output} already exists; choose another --output, or replace it with --force")
    if not output.is_dir() or (any(output.iterdir()) and not (output / CARD).is_file()):
        raise UserError(f"{output} is not a folder of prepared data (it has no {CARD}); choose another --output")
    for source in sources:
        if output.resolve() in source.resolve().parents:
            raise UserError(f"{source} lies in {output}, which --force would delete; choose another --output")


def write(
    prepared: Prepared,
    output: Path,
    *,
    license_text: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
    **more: Any,
) -> dict[str, Any]:
    """Write each part as `PART.jsonl`, with `card.json` and `card.md`, to the folder `output`; returns the card.

    The rows hold `prompt`, `chosen` and `rejected` and nothing else, as lists of messages: a trainer takes other columns for
    something they are not. `more` is added to the card, and `beside` are files by name that go into the folder as well. The
    folder appears whole or not at all; one that is there is replaced. Raises UserError where it cannot be written.
    """
    output = output.resolve()  # "." has no name to give the folder that takes its place
    files = {f"{name}.jsonl": "".join(map(_line, pairs)).encode() for name, pairs in prepared.parts.items()}
    card = make_card(prepared, files, license_text) | more
    texts = {CARD: json.dumps(card, ensure_ascii=False, indent=2) + "\n", "card.md": _markdown(card)}
    write_files(output, {**files, **beside, **{name: content.encode() for name, content in texts.items()}})
    return card


def write_files(output: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name into the folder `output`, which appears whole or not at all and replaces one that is there.

    Raises UserError where it cannot be written.
    """
    output = output.resolve()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(output) as made:
            for name, content in files.items():
                (made / name).write_bytes(content)
            if output.exists():
                output.rename(made.parent / "replaced")  # deleted with the scratch folder that it lies in now
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror})") from error


def _line(pair: Pair) -> str:
    def messages(turns: Sequence[Message]) -> list[dict[str, str]]:
        return [turn._asdict() for turn in turns]

    row = {
        "prompt": messages(pair.prompt),
        "chosen": messages([Message("assistant", pair.chosen)]),
        "rejected": messages([Message("assistant", pair.rejected)]),
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def make_card(prepared: Prepared, files: Mapping[str, bytes], license_text: str | None = None) -> dict[str, Any]:
    """Return the data card, in types that JSON knows. `files` are the parts as they are written, by name."""
    preparation = prepared.preparation
    pairs = [pair for part in prepared.parts.values() for pair in part]
    prompts = {name: {prompt_key(pair) for pair in part} for name, part in prepared.parts.items()}
    return {
        "license": license_text or "not stated",
        "sources": [_source(source) for source in prepared.sources],
        "seed": preparation.seed,
        "filters": preparation.filters.model_dump(mode="json"),
        "removed": [{"filter": one.filter, "count": one.count, "examples": list(one.examples)} for one in prepared.removed],
        "split": list(preparation.split),
        "split_by": preparation.split_by,
        "parts": {
            name: {
                "pairs": len(part),
                "prompts": len(prompts[name]),
                "prompts_also_in_train": 0 if name == "train" else len(prompts[name] & prompts["train"]),
                "sha256": hashlib.sha256(files[f"{name}.jsonl"]).hexdigest(),
            }
            for name, part in prepared.parts.items()
        },
        "words": {
            "chosen": _lengths([len(pair.chosen.split()) for pair in pairs]),
            "rejected": _lengths([len(pair.rejected.split()) for pair in pairs]),
            "chosen_longer": _share(pairs, 1),
            "rejected_longer": _share(pairs, -1),
        },
        "sha256": hashlib.sha256(b"".join(files.values())).hexdigest(),
    }


def _source(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "bytes": source.size,
        "sha256": source.sha256,
        "layouts": {str(layout): count for layout, count in sorted(source.layouts.items())},
        "rows": source.rows,
        "bad_rows": len(source.bad),
        "bad_examples": [{"row": row.line, "error": row.error} for row in source.bad[:_REASONS]],
        "share": source.share,
        "used": source.used,
    }


def _lengths(words: Sequence[int]) -> dict[str, float]:
    ordered = sorted(words)
    return {
        "mean": round(statistics.fmean(ordered), 1),
        "median": statistics.median(ordered),
        "p95": ordered[(95 * len(ordered) + 99) // 100 - 1],
    }


def _share(pairs: Sequence[Pair], sign: int) -> float:
    """Return the share of pairs whose chosen completion has more words (`sign` 1) or fewer (-1) than the rejected one."""
    longer = sum(sign * (len(pair.chosen.split()) - len(pair.rejected.split())) > 0 for pair in pairs)
    return round(longer / len(pairs), 4)


def _markdown(card: Mapping[str, Any]) -> str:
    words = card["words"]
    lengths = [
        [name, words[name]["mean"], words[name]["median"], words[name]["p95"], f"{words[f'{name}_longer']:.1%}"]
        for name in ("chosen", "rejected")
    ]
    sources = [
        [*(one[key] for key in ("name", "rows", "bad_rows", "used", "bytes")), ", ".join(one["layouts"]), f"`{one['sha256']}`"]
        for one in card["sources"]
    ]
    parts = [
        [name, one["pairs"], one["prompts"], one["prompts_also_in_train"], f"`{one['sha256']}`"]
        for name, one in card["parts"].items()
    ]
    removed = [[one["filter"], one["count"], "; ".join(one["examples"])] for one in card["removed"]]
    filters = ", ".join(f"{name} {value}" for name, value in card["filters"].items() if value) or "the default ones"
    percentages = "/".join(f"{share:g}" for share in card["split"])
    sections = [
        "# Data card",
        f"License: {_cell(card['license'])}.",
        f"Seed {card['seed']}. Split {percentages} by {card['split_by']}. Filters: {filters}.",
        "## Sources",
        _table(["file", "rows", "bad rows", "used", "bytes", "layout", "SHA-256"], sources),
        "## Left out",
        _table(["filter", "pairs", "for example"], removed),
        "## Parts",
        _table(["part", "pairs", "prompts", "prompts also in train", "SHA-256"], parts),
        "## Words of a completion",
        _table(["completion", "mean", "median", "95th percentile", "longer than the other"], lengths),
        f"SHA-256 of all parts: `{card['sha256']}`",
    ]
    return "\n\n".join(sections) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(str(cell)) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
