"""Stand-ins that make tests quick: an embedder and an assistant without models, small texts, and work in other processes.

Everything else in those tests is real: files, workers, Chroma, SQLite and the command line. Processes come from a server
that has imported what they need, so that a test can afford to start dozens.
"""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from assistant.evaluate import Variant
from ingest.course import Course
from ingest.errors import UserError
from ingest.read import FileRead, ReadOptions, read_documents

if TYPE_CHECKING:
    from assistant.answer import Answer
    from assistant.mcq import MCQ

_DIMENSION = 16
_PARTS = [
    "lamp",
    "river",
    "stone",
    "cloud",
    "engine",
    "copper",
    "window",
    "garden",
    "violin",
    "ladder",
    "anchor",
    "basket",
    "candle",
    "desert",
    "forest",
    "harbor",
]
_WORDS = [first + second for first in _PARTS for second in _PARTS]


class HashEmbedder:
    """Vectors from the SHA-256 of the text: the same everywhere, and about nothing. It counts what it was asked for."""

    name = "hash"
    max_tokens = 256

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause  # seconds a batch takes
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self.pause)
        self.encoded += len(texts)
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        numbers = np.array([np.frombuffer(digest, dtype=np.uint16) for digest in digests], dtype=np.float32) - 2**15
        vectors = numbers.reshape(len(texts), _DIMENSION)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class HashAssistant:
    """Answers from the SHA-256 of the question: the same everywhere, and about nothing. It counts what it was asked."""

    course = None
    scoring = "letter"
    passages = 0
    permute = 1
    priors: ClassVar[dict[int, tuple[float, ...]]] = {}

    def __init__(self, pause: float = 0.0) -> None:
        from assistant.card import Card

        self.lm = SimpleNamespace(name="hash", card=Card(), quantization="none", dtype="float32")
        self.pause = pause  # seconds a question takes
        self.asked = 0

    def answer_many(self, mcqs: "Sequence[MCQ]") -> "list[Answer | UserError]":
        def answer(mcq: "MCQ") -> "Answer | UserError":
            try:
                return self.answer(mcq)
            except UserError as error:
                return error

        return [answer(mcq) for mcq in mcqs]

    def answer(self, mcq: "MCQ") -> "Answer":
        from assistant.answer import Answer, Parts

        started = time.perf_counter()
        time.sleep(self.pause)
        self.asked += 1
        weights = [1 + byte for byte in hashlib.sha256(mcq.question.encode()).digest()[: len(mcq.options)]]
        letter = mcq.letters[weights.index(max(weights))]
        shares = tuple(weight / sum(weights) for weight in weights)
        return Answer(mcq, letter, shares, (), "hash", "letter", 0.5, (), time.perf_counter() - started, Parts(shares))


def batch(arguments: Sequence[str], pause: float) -> None:
    """Run `mcqa batch` with a HashAssistant, silently; to run in a process of its own."""
    from assistant import cli

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    cli._assistant = lambda *_: HashAssistant(pause)  # type: ignore[assignment,return-value]
    sys.argv = ["mcqa", "batch", *arguments]
    cli.main()


def prose(topic: str, paragraphs: int = 8) -> str:
    """Return paragraphs that all hold the word "common" and `topic`, and are the same for the same arguments."""
    draw = random.Random(topic)
    return "\n\n".join(
        " ".join([f"Paragraph {number} is common and about {topic}:", *draw.choices(_WORDS, k=60)]) + "."
        for number in range(paragraphs)
    )


def sync(name: str, folder: Path, home: Path, outcome: Path, pause: float = 0.0, largest_file: int = 0) -> None:
    """Sync a course and write to `outcome` the type and the words of what was raised, or null; to run in a process of its own.

    No file may grow beyond `largest_file` bytes, as where a disk is full.
    """
    os.environ["MCQA_HOME"] = str(home)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    raised: dict[str, str] | None = None
    try:
        Course(name, embedder=HashEmbedder(pause)).sync(folder)
    except UserError as error:
        raised = {"type": "UserError", "words": str(error)}
    except BaseException as error:  # noqa: BLE001 -- what it is, the test says
        raised = {"type": type(error).__name__, "words": traceback.format_exc()}
    outcome.write_text(json.dumps(raised), encoding="utf-8")


def read_one_by_one(files: Sequence[tuple[str, Path]], options: ReadOptions, outcome: Path) -> None:
    """Read files with one worker; write to `outcome` each one's status, reason and seconds, and the worker's peak megabytes."""
    read: dict[str, Any] = {}
    before = time.monotonic()
    for event in read_documents(files, options, workers=1):
        if isinstance(event, FileRead):
            status = getattr(event.result, "status", "read")
            read[event.name] = [status, getattr(event.result, "reason", ""), time.monotonic() - before]
            before = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    outcome.write_text(json.dumps({"files": read, "megabytes": peak}), encoding="utf-8")


def process(target: Any, *arguments: Any, **named: Any) -> ForkServerProcess:
    """Start a process that calls `target`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "chromadb", "simplemma", "langchain_text_splitters", "assistant.batch", "fakes"])
    started = context.Process(target=target, args=arguments, kwargs=named)
    started.start()
    return started


def children(pid: int) -> list[int]:
    """Return the ids of the processes that `pid` has started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return [child for child in found if is_running(child)]


def is_running(pid: int) -> bool:
    """Return whether the process is there, and not merely waiting for its parent to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class _Weights:
    dtype = "torch.float32"


class _Model:
    model = _Weights()
    device = "cpu"
    bytes = 0


class Unasked:
    """An assistant to which no question is put; `ballast` bytes stand for its model."""

    lm, scoring, passages, course = _Model(), "cloze", 0, None

    def __init__(self, ballast: int) -> None:
        self.ballast = bytearray(os.urandom(2**20)) * (ballast // 2**20)


# What may stand for assistant.evaluate.build, in another process.
def build_with_ballast(variant: Variant) -> Any:
    """Return an assistant whose model takes as many MiB as the variant's model is called."""
    return Unasked(int(variant.model or 0) * 2**20)


def build_unloadable(variant: Variant) -> Any:
    raise UserError("there is no such model")


def build_wrong(variant: Variant) -> Any:
    raise ZeroDivisionError("a fault of the program")


def build_and_die(variant: Variant) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def build_for_ever(variant: Variant) -> Any:
    """Write this process's id to the file that the variant's model is called, and never return."""
    Path(str(variant.model)).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(600)
