"""What all visitors of the page share: one model, who may do what, and whose turn it is."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from assistant.answer import TOGETHER, Answer, Assistant
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.users import Users
from assistant.web_look import toast
from ingest.course import Course
from ingest.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

_FEW = 4  # prompts of long work that are read before a question may come in between
_PACES = 50  # questions whose time is remembered


class Turns:
    """Lets one thread at a time use the model; whoever waits with a question goes before a batch or an explanation."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._asking = 0

    @contextmanager
    def turn(self, *, asks: bool = True) -> Iterator[None]:
        """Wait for the turn and hold it for the block."""
        with self._changed:
            self._asking += asks
            self._changed.wait_for(lambda: not self._taken and (asks or not self._asking))
            self._asking -= asks
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


class _GivesWay(Assistant):
    """An assistant for long work: it reads a few prompts at a time and lets those go first who wait for one answer.

    Before each few, `wanted` is asked whether to go on; where it says no, Unwanted is raised. `reader` computes.
    """

    turns: Turns
    reader: ThreadPoolExecutor
    wanted: Callable[[], bool] = staticmethod(lambda: True)

    def _prepared(self, mcq: MCQ, examples: Sequence[MCQ], evidence: bool) -> Any:
        return self.reader.submit(super()._prepared, mcq, examples, evidence).result()

    def _scored(self, mcqs: Sequence[MCQ], hits: Any, examples: Any) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(mcqs), _FEW):
            if not self.wanted():
                raise Unwanted
            few = slice(start, start + _FEW)
            with self.turns.turn(asks=False):
                found += self.reader.submit(super()._scored, mcqs[few], hits[few], examples).result()
        return found


class Unwanted(Exception):  # noqa: N818 -- nothing went wrong
    """Whoever wanted it has gone on to something else."""


@dataclass(slots=True, eq=False)  # two visitors may ask the same
class _Waiting:
    """A question that waits for its answer."""

    mcq: MCQ
    course: str | None
    result: Answer | BaseException | None = None


@dataclass(slots=True)
class Service:
    """What the page's callbacks work on. `load` gives the model of a name, None for the one to begin with.

    `users` says who is staff; without it everybody is. All methods may be called by any thread.
    """

    load: Callable[[str | None], LanguageModel]
    users: Users | None = None
    turns: Turns = field(default_factory=Turns)
    # All reading is done by one thread: each that computes keeps memory of its own for it, and visitors come in by dozens.
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "mcqa-reader"))
    _lm: LanguageModel | None = None
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _loading: threading.RLock = field(default_factory=threading.RLock)
    _paces: deque[float] = field(default_factory=lambda: deque(maxlen=_PACES))

    def lm(self) -> LanguageModel:
        """Return the model, loaded by whoever comes first."""
        with self._loading:
            if self._lm is None:
                self._lm = self.load(None)
            return self._lm

    def switch(self, name: str) -> LanguageModel:
        """Load another model in place of the one there is, which is given up first: two may not fit into memory.

        Questions wait meanwhile. Where the new one cannot be loaded, the old one comes back and the error is raised.
        """
        with self.turns.turn(asks=False), self._loading:
            before = self._lm.name if self._lm else None
            self._lm = None
            try:
                self._lm = self.load(name)
            except BaseException:
                self._lm = self.load(before)
                raise
            self._paces.clear()
            return self._lm

    @property
    def name(self) -> str | None:
        """The loaded model's name, None before the first was loaded and while another is."""
        lm = self._lm
        return lm.name if lm else None

    @property
    def loaded(self) -> LanguageModel | None:
        """The model, None before the first was loaded and while another is."""
        return self._lm

    @property
    def pace(self) -> float | None:
        """The seconds that a question took lately (the median), None before the first."""
        paces = sorted(self._paces)
        return paces[len(paces) // 2] if paces else None

    def assistant(self, course: str | None) -> Assistant:
        """Return what answers, with the material of `course` where it is given; raises CourseError where there is none."""
        return Assistant(self.lm(), Course.open(course) if course else None)

    def answer(self, mcq: MCQ, course: str | None) -> Answer:
        """Answer a question; those that wait for the same course are read together, which is much faster for a class."""
        own = _Waiting(mcq, course)
        self._waiting.append(own)
        with self.turns.turn():
            if own.result is None:
                self._waiting.remove(own)
                together = [own, *(other for other in list(self._waiting) if other.course == course)][:TOGETHER]
                for other in together[1:]:
                    self._waiting.remove(other)
                self._answer(together)
        if isinstance(own.result, Answer):
            return own.result
        assert own.result is not None  # noqa: S101 -- for the type checker: it was set above, or by who had the turn before
        raise own.result

    def _answer(self, together: Sequence[_Waiting]) -> None:
        try:
            started = time.perf_counter()
            assistant = self.assistant(together[0].course)
            results = self._reader.submit(assistant.answer_many, [one.mcq for one in together]).result()
            self._paces.append((time.perf_counter() - started) / len(together))
        except BaseException as error:  # noqa: BLE001 -- everyone who waited is told, each in a thread of its own
            for one in together:
                one.result = error
        else:
            for one, result in zip(together, results, strict=True):
                one.result = result

    def patient(self, course: str | None, wanted: Callable[[], bool] = lambda: True) -> Assistant:
        """Return an assistant for long work, which lets questions go first and raises Unwanted once `wanted` says no."""
        made = _GivesWay(self.lm(), Course.open(course) if course else None)
        made.turns, made.reader, made.wanted = self.turns, self._reader, wanted
        return made

    def is_staff(self, request: gr.Request | None) -> bool:
        """Whether a visitor may index, answer files and switch models."""
        return self.users is None or self.users.is_staff(getattr(request, "username", None))

    def require_staff(self, request: gr.Request | None) -> None:
        """Raise UserError where a visitor is not staff. Every callback of staff's begins with it: hiding a tab stops nobody."""
        if not self.is_staff(request):
            raise UserError("only staff can do this; ask whoever runs this page")


def shown(function: Callable[P, T]) -> Callable[P, T]:
    """Turn a UserError into a message that Gradio shows for a moment."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise toast(error) from error

    return wrapper
