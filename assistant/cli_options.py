"""What the commands share: their options, and how they complain."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.errors import CourseError

if TYPE_CHECKING:
    from ingest.course import Course


class Method(StrEnum):
    """How passages are found."""

    hybrid = "hybrid"
    dense = "dense"
    euclidean = "euclidean"
    lexical = "lexical"


class Query(StrEnum):
    """What is searched for: the question alone, with all its options, or with each option by itself."""

    question = "question"
    options = "options"
    each = "each"


class Scoring(StrEnum):
    """How options are scored."""

    letter = "letter"
    cloze = "cloze"


class Dtype(StrEnum):
    """What numbers a model computes in."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Quantize(StrEnum):
    """How a model's weights are kept."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"
    int8_dynamic = "int8-dynamic"


CourseOption = Annotated[str | None, typer.Option("--course", "-c", metavar="NAME", help="The course to search.")]
NoCourseOption = Annotated[bool, typer.Option("--no-course", help="Answer without course material.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A model's or adapter's folder, GGUF file, or Hub name; default: the model that comes along."
    ),
]
QuantizeOption = Annotated[Quantize, typer.Option(help="Keep the model's weights in 8 or 4 bits.")]
DtypeOption = Annotated[
    Dtype, typer.Option(help="What the model computes in; auto is the fastest that this machine really has.")
]
PermuteOption = Annotated[
    int, typer.Option(min=1, max=10, help="Ask under so many orders of the options and average (letter scoring).")
]
ScoringOption = Annotated[
    Scoring | None, typer.Option(help="Score option letters or option texts; default: what the model is made for.")
]
PassagesOption = Annotated[
    int | None, typer.Option(min=0, max=50, help="How many passages the model reads; default: what it is made for.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def complain(message: str) -> None:
    """Print one line on standard error, without the control characters of a file or question that it may quote."""
    printable = "".join(character if character.isprintable() else " " for character in message)
    print(" ".join(printable.split()), file=sys.stderr)


def choose_course(name: str | None) -> "Course":
    """Open the course of that name, or the only one there is; raises CourseError where that is none or not clear."""
    from ingest.course import Course, course_names

    if name is not None:
        return Course.open(name)
    known = course_names()
    if not known:
        raise CourseError("no course is indexed yet; run: mcqa index FOLDER --course NAME, or ask with --no-course")
    if len(known) > 1:
        raise CourseError(f"choose a course with --course; there are {', '.join(known)}")
    return Course.open(known[0])
