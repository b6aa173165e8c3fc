"""`mcqa-train prepare`: data for training, checked before any model is loaded."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assistant.cli_options import JsonOption, Scoring, complain

if TYPE_CHECKING:
    from training.prepare import Preparation, Source

prepare = typer.Typer(
    name="prepare",
    help="Make training data: read, filter and split it, with a card that says what it is.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SHOWN = 5  # bad rows that are named on the terminal
_BAD_ROWS = 3  # exit status


class SplitBy(StrEnum):
    """What a split keeps together."""

    prompt = "prompt"
    row = "row"


OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write to.")]
SplitOption = Annotated[
    str, typer.Option(metavar="PERCENTAGES", help="Shares of train/test or train/valid/test, as in 75/12.5/12.5.")
]
SplitByOption = Annotated[
    SplitBy, typer.Option(help="Keep a prompt's rows on one side, or split row by row, as some published systems did.")
]
SeedOption = Annotated[int, typer.Option(help="Another seed draws and splits otherwise.")]
PerPromptOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep at most N pairs of a prompt.")]
MaxWordsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Leave out pairs whose prompt and longer completion have more words.")
]
MaxCharactersOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="As --max-words, in characters.")]
NearDuplicatesOption = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=1, metavar="SIMILARITY", help="Leave out pairs that share so much of their 5-word sequences, as in 0.8."
    ),
]
LicenseOption = Annotated[str | None, typer.Option("--license", metavar="TEXT", help="The data's license, for the card.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what was prepared into this folder before.")]


@prepare.command()
def preferences(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files of preferences (.jsonl, .json, .gz); FILE=0.6 or FILE=5000 draws a part of one."
        ),
    ],
    output: OutputOption,
    split: SplitOption = "80/20",
    split_by: SplitByOption = SplitBy.prompt,
    seed: SeedOption = 0,
    supported: Annotated[
        bool, typer.Option("--supported", help="Keep course labels only whose winner wins a criterion too.")
    ] = False,
    per_prompt: PerPromptOption = None,
    max_words: MaxWordsOption = None,
    max_characters: MaxCharactersOption = None,
    near_duplicates: NearDuplicatesOption = None,
    license_text: LicenseOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make pairs for preference tuning from data in any published layout.

    Bad rows are named, the others are used, and the exit status is 3.
    """
    from training.datacard import check_output
    from training.filters import Filters
    from training.preferences import read_preferences
    from training.prepare import Preparation, load, parse_share, parse_split

    filters = Filters(
        supported=supported,
        per_prompt=per_prompt,
        max_words=max_words,
        max_characters=max_characters,
        near_duplicates=near_duplicates,
    )
    preparation = Preparation(split=parse_split(split), split_by=split_by.value, seed=seed, filters=filters)
    shares = [parse_share(text) for text in sources]
    check_output(output, [share.path for share in shares], force)
    loaded = [load(share, read_preferences(share.path, seed)) for share in shares]
    _finish(loaded, preparation, output, license_text, as_json, {"kind": "preferences"})


@prepare.command()
def pairs(
    questions: Annotated[Path, typer.Argument(help="Keyed questions: .jsonl, .json or .csv.")],
    output: OutputOption,
    scoring: Annotated[Scoring, typer.Option(help="Prefer the right option's letter, or its text.")] = Scoring.letter,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `mcqa batch` wrote for the questions (.jsonl): use only its likeliest wrong option."
        ),
    ] = None,
    split: SplitOption = "80/20",
    split_by: SplitByOption = SplitBy.prompt,
    seed: SeedOption = 0,
    per_prompt: PerPromptOption = None,
    max_words: MaxWordsOption = None,
    max_characters: MaxCharactersOption = None,
    near_duplicates: NearDuplicatesOption = None,
    license_text: LicenseOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make pairs for preference tuning from keyed questions: the right option against each wrong one.

    Questions without a key are named, the others are used, and the exit status is 3.
    """
    from training.datacard import check_output
    from training.filters import Filters
    from training.mcq_pairs import read_pairs
    from training.prepare import Preparation, Share, load, parse_split

    filters = Filters(
        per_prompt=per_prompt, max_words=max_words, max_characters=max_characters, near_duplicates=near_duplicates
    )
    preparation = Preparation(split=parse_split(split), split_by=split_by.value, seed=seed, filters=filters)
    check_output(output, [questions] if answers is None else [questions, answers], force)
    loaded = load(Share(questions), read_pairs(questions, scoring.value, answers))
    more = {"kind": "pairs", "scoring": scoring.value, "answers": None if answers is None else answers.name}
    _finish([loaded], preparation, output, license_text, as_json, more)


class QuizKind(StrEnum):
    """What a made question asks for."""

    term = "term"
    definition = "definition"
    gap = "gap"


@prepare.command()
def quiz(
    folder: Annotated[Path, typer.Argument(help="The folder with the course's files, as `mcqa index` takes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The question file to write (.jsonl).")],
    questions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Make at most N, spread evenly over the pages; default: all.")
    ] = None,
    kind: Annotated[
        list[QuizKind] | None,
        typer.Option(
            help="The term of a definition, the meaning of a term, or the gap in a sentence; repeatable; default: all."
        ),
    ] = None,
    options: Annotated[int, typer.Option(min=2, max=10, help="Options of each question.")] = 4,
    seed: Annotated[int, typer.Option(help="Another seed draws other wrong options.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make questions from a course's own pages: its glossary, and the terms and years of its sentences.

    Each row names the document, the page and the sentence that answers. Read them before you hand them out: no one wrote them.
    Files that cannot be read are named, the others are used, and the exit status is 3.
    """
    from assistant.quiz import KINDS, make_quiz
    from ingest.document import DocumentText
    from ingest.errors import UserError
    from ingest.home import ensure_folder, write_atomically
    from ingest.read import FileRead, ReadOptions, read_documents
    from ingest.sync import find_material

    if output.suffix.lower() != ".jsonl":
        raise UserError(f"{output} is no name of a question file that keeps the pages; end it in .jsonl")
    if output.exists() and (output.is_dir() or not force):
        raise UserError(f"{output} already exists; choose another --output" + ("" if output.is_dir() else ", or add --force"))
    files = find_material(folder).files
    results = {
        event.name: event.result for event in read_documents([*files.items()], ReadOptions()) if isinstance(event, FileRead)
    }
    documents = {name: result.pages for name, result in results.items() if isinstance(result, DocumentText)}
    unread = {name: str(result) for name, result in sorted(results.items()) if not isinstance(result, DocumentText)}
    for name, reason in unread.items():
        complain(f"{name}: {reason}")
    if not documents:
        raise UserError(f"{folder} holds no course file that can be read; give the folder that `mcqa index` takes")
    kinds = KINDS if kind is None else tuple(one.value for one in kind)
    made = make_quiz(documents, kinds=kinds, limit=questions, options=options, seed=seed)
    if not made:
        raise UserError(f"the files in {folder} define no terms and repeat too few to ask for; give more pages")
    ensure_folder(output.parent)
    write_atomically(output, "".join(json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in made))
    counts = {name: sum(item.kind == name for item in made) for name in kinds}
    pages = len({(item.document, item.page) for item in made})
    if as_json:
        print(json.dumps({"output": str(output), "questions": len(made), "kinds": counts, "pages": pages, "unread": unread}))
    else:
        print(
            f"{len(made)} questions ({', '.join(f'{n} {name}' for name, n in counts.items())}) from {pages} pages in {output}"
        )
    if unread:
        raise typer.Exit(_BAD_ROWS)


@prepare.command()
def feedback(
    output: OutputOption,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The corrections; default: those of the page on this machine.")
    ] = None,
    split: SplitOption = "80/20",
    seed: SeedOption = 0,
    license_text: LicenseOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make keyed questions and preference pairs from students' corrections on the page.

    FOLDER/questions.jsonl holds the questions, the other files pairs: the right option's text over the one that the model took.
    Bad lines and questions on which students disagree are named and left out, and the exit status is 3.
    """
    from assistant.feedback import feedback_file
    from ingest.errors import UserError
    from training.datacard import CARD, check_output, write_files
    from training.feedback import feedback_pairs, read_feedback
    from training.prepare import Preparation, Share, load, parse_split

    path = file or feedback_file()
    check_output(output, [path], force)
    preparation = Preparation(split=parse_split(split), seed=seed)
    found = read_feedback(path)
    if not found.corrections:
        why = "; ".join([*found.conflicts, *(f"line {line}: {reason}" for line, reason in found.bad)]) or "it is empty"
        raise UserError(f"{path} holds no correction that can be used ({why[:300]})")
    for line, reason in found.bad[:_SHOWN]:
        complain(f"{path.name} line {line}: {reason}")
    for conflict in found.conflicts:
        complain(f"left out, {conflict}")
    rows = [json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in found.corrections]
    print(f"Questions: {len(rows)}, in {output / 'questions.jsonl'}", file=sys.stderr)
    more = {"kind": "feedback", "questions": len(rows), "conflicts": found.conflicts, "bad_lines": len(found.bad)}
    questions = {"questions.jsonl": "".join(rows).encode()}
    loaded = load(Share(path), feedback_pairs(found.corrections, path.name))
    if len(loaded.pairs) < len(preparation.split):
        complain(f"note: {len(loaded.pairs)} corrected mistakes are too few to split into pairs; only questions are written")
        write_files(output, {**questions, CARD: (json.dumps(more, ensure_ascii=False, indent=2) + "\n").encode()})
        if as_json:
            print(json.dumps({"output": str(output), **more}, ensure_ascii=False))
    else:
        _finish([loaded], preparation, output, license_text, as_json, more, questions)
    if found.bad or found.conflicts:
        raise typer.Exit(_BAD_ROWS)


def _finish(
    sources: "list[Source]",
    preparation: "Preparation",
    output: Path,
    license_text: str | None,
    as_json: bool,
    more: dict[str, Any],
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Prepare and write what was read, and say what became of it."""
    from training.datacard import write
    from training.prepare import prepare as run

    card = write(run(sources, preparation), output, license_text=license_text, beside=beside, **more)
    bad = [f"{source.name} row {row.line}: {row.error}" for source in sources for row in source.bad]
    for line in bad[:_SHOWN]:
        complain(line)
    if len(bad) > _SHOWN:
        complain(f"... and {len(bad) - _SHOWN} more bad rows")
    if as_json:
        print(json.dumps({"output": str(output), **card}, ensure_ascii=False))
    else:
        _show(card, output)
    for source in sources:
        if isinstance(source.share, int) and source.used < source.share:
            complain(f"note: {source.name} has {source.used} usable pairs, fewer than the {source.share} asked for")
    for name, part in card["parts"].items():
        if part["prompts_also_in_train"]:
            complain(
                f"warning: {part['prompts_also_in_train']} of the {part['prompts']} prompts of {name} also stand in train, "
                "so results on it are too good; --split-by prompt keeps them apart"
            )
    if bad:
        raise typer.Exit(_BAD_ROWS)


def _show(card: dict[str, Any], output: Path) -> None:
    for one in card["removed"]:
        if one["count"]:
            more = "; ..." if one["count"] > len(one["examples"]) else ""
            print(f"Left out as {one['filter']}: {one['count']} ({'; '.join(one['examples'])}{more})")
    parts = ", ".join(f"{part['pairs']} {name} ({part['prompts']} prompts)" for name, part in card["parts"].items())
    words = card["words"]
    print(f"Pairs: {parts}")
    medians = f"chosen {words['chosen']['median']:g}, rejected {words['rejected']['median']:g}"
    print(f"Words, median: {medians}; chosen is longer in {words['chosen_longer']:.0%} of pairs")
    print(f"Written to {output}, with a card")
