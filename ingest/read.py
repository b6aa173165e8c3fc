"""A course file → its pages: which reader takes it, in a worker process that may use so much time and memory and no more."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ingest.document import DocumentText, Heading, Page
from ingest.errors import UnreadableDocumentError, UserError

SUFFIXES = frozenset({".pdf", ".md", ".markdown", ".txt", ".html", ".htm", ".docx", ".pptx"})
# Course material by its name, but nothing here reads it: said, so that nobody believes it to be in the index.
UNSUPPORTED = frozenset({".doc", ".ppt", ".odt", ".odp", ".rtf", ".epub", ".djvu", ".ps", ".pages", ".key"})


_OCR_SECONDS = 30.0  # what one page may take where it is recognized rather than read


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may cost: `seconds` for opening it and again for every page, `megabytes` of address space.

    `total_seconds` bounds the whole file, with `seconds_per_page` more for each page that was read.
    """

    seconds: float = 30.0
    total_seconds: float = 45.0
    seconds_per_page: float = 0.5
    megabytes: int = 768


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are read: the `password` for encrypted ones, whether pages without text go through OCR, and limits."""

    password: str = ""
    ocr: bool = False
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class PagesRead:
    """`done` of `total` pages of the file `name` were read."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class FileRead:
    """The file `name` was read to its end: its text, or why it has none."""

    name: str
    result: DocumentText | UnreadableDocumentError


def read_document(path: Path, options: ReadOptions, on_page: Callable[[int, int], None] = lambda *_: None) -> DocumentText:
    """Read one file here, in this process; raises UnreadableDocumentError where it gives no text."""
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        from ingest.pdf import read_pdf

        return read_pdf(path, password=options.password, ocr=options.ocr, on_page=on_page)
    if suffix == ".docx":
        from ingest.office import read_docx

        return read_docx(path)
    if suffix == ".pptx":
        from ingest.office import read_pptx

        return read_pptx(path)
    from ingest import markup

    if suffix in (".html", ".htm"):
        return markup.read_html(path)
    return markup.read_markdown(path) if suffix in (".md", ".markdown") else markup.read_text(path)


def read_documents(
    files: Sequence[tuple[str, Path]], options: ReadOptions, workers: int | None = None
) -> Iterator[PagesRead | FileRead]:
    """Read files of (name, path) in `workers` processes (default: one a core) and yield what happens, as it happens.

    A file on which a worker crashes, hangs or runs out of memory ends as an UnreadableDocumentError of its own and costs
    no other. At most two files a worker wait to be taken, so that memory does not grow with the folder.
    """
    count = max(1, min(len(files), workers or os.cpu_count() or 1))
    waiting: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)
    events: queue.Queue[PagesRead | FileRead | BaseException | None] = queue.Queue()
    room = threading.Semaphore(2 * count)
    stop = threading.Event()

    def work() -> None:
        worker = _Worker(options)
        try:
            while not stop.is_set():
                room.acquire()
                try:
                    name, path = waiting.get_nowait()
                except queue.Empty:
                    return
                events.put(FileRead(name, worker.read(name, path, events.put, stop)))
        except BaseException as error:  # noqa: BLE001 -- a fault of ours must reach the caller, not die in a thread
            events.put(error)
        finally:
            worker.close()
            events.put(None)

    threads = [threading.Thread(target=work, name="mcqa-read", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        running = count
        while running:
            event = events.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                if isinstance(event, FileRead):
                    room.release()
                yield event
    finally:
        stop.set()
        for _ in threads:
            room.release()
        for thread in threads:
            thread.join()


class _Worker:
    """One worker process, started when it is first needed and again after it had to be killed."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def read(
        self, name: str, path: Path, tell: Callable[[PagesRead], None], stop: threading.Event
    ) -> DocumentText | UnreadableDocumentError:
        """Read `path`, telling of pages on the way; what goes wrong with the file is returned, not raised."""
        limits = self._options.limits
        process = self._started()
        assert process.stdin is not None  # noqa: S101 -- for the type checker: it is a pipe
        with contextlib.suppress(OSError):  # a dead worker shows below
            process.stdin.write(json.dumps({"path": str(path)}) + "\n")
            process.stdin.flush()
        started = time.monotonic()
        done = 0
        while True:
            per_page = _OCR_SECONDS if self._options.ocr else limits.seconds_per_page
            now = time.monotonic()
            deadline = min(now + limits.seconds, started + limits.total_seconds + done * per_page)
            line: str | None = ""
            while line == "" and time.monotonic() < deadline and not stop.is_set():
                with contextlib.suppress(queue.Empty):  # in short steps, so that a stop is heeded
                    line = self._lines.get(timeout=0.25)
            if line == "":
                self.close()
                at = f" at page {done + 1}" if done else ""
                return UnreadableDocumentError("stopped", f"reading it took too long and was stopped{at}")
            if line is None or not line.endswith("\n"):  # nothing more, or half an answer
                self.close()
                return UnreadableDocumentError("stopped", "the reader crashed on it")
            message = json.loads(line)
            if "done" in message:
                done = message["done"]
                tell(PagesRead(name, done, message["total"]))
            elif "user_error" in message:
                raise UserError(message["user_error"])
            elif "reason" in message:
                if message["status"] == "stopped":
                    self.close()  # what is left of its memory is not worth keeping
                return UnreadableDocumentError(message["status"], message["reason"])
            else:
                return _from_json(message)

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._lines = queue.Queue()
            root = str(Path(__file__).resolve().parent.parent)
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ingest.read"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env=environment,
            )
            threading.Thread(target=_pump, args=(self._process, self._lines), daemon=True).start()
            assert self._process.stdin is not None  # noqa: S101
            with contextlib.suppress(OSError):
                # The password goes through the pipe: arguments and environment can be seen by others.
                self._process.stdin.write(json.dumps(asdict(self._options)) + "\n")
                self._process.stdin.flush()
        return self._process


def _pump(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    with contextlib.suppress(OSError, ValueError):  # closed under us
        for line in process.stdout or ():
            lines.put(line)
    lines.put(None)


def _from_json(message: dict[str, Any]) -> DocumentText:
    pages = tuple(
        Page(number, text, tuple(Heading(*heading) for heading in headings), reader)
        for number, text, headings, reader in message["pages"]
    )
    return DocumentText(pages, tuple(message["unreadable_pages"]), message["unit"])


def _to_json(document: DocumentText) -> dict[str, Any]:
    pages = [[p.number, p.text, [[h.start, h.level, h.title] for h in p.headings], p.reader] for p in document.pages]
    return {"pages": pages, "unreadable_pages": document.unreadable_pages, "unit": document.unit}


def _serve() -> None:
    """Be a worker: read the options, then paths, one JSON line each, and answer each path with JSON lines, until EOF."""
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    given = json.loads(sys.stdin.readline())
    options = ReadOptions(given["password"], given["ocr"], Limits(**given["limits"]))
    limit_memory(options.limits.megabytes)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    paths: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            paths.put(Path(json.loads(line)["path"]))
        os._exit(0)  # whoever asked is gone; a file that hangs must not keep this process

    threading.Thread(target=listen, daemon=True).start()
    while True:
        path = paths.get()
        try:
            document = read_document(path, options, lambda done, total: answer({"done": done, "total": total}))
            answer(_to_json(document))
        except UnreadableDocumentError as error:
            answer({"status": error.status, "reason": error.reason})
        except UserError as error:
            answer({"user_error": str(error)})
        except MemoryError:
            answer({"status": "stopped", "reason": f"reading it needs more than {options.limits.megabytes} MB of memory"})
        except (Exception, RecursionError) as error:  # noqa: BLE001 -- one file must not cost the others
            answer({"status": "damaged", "reason": f"it cannot be read ({type(error).__name__})"})


def limit_memory(megabytes: int) -> None:
    """Let this process use so much address space and no more, where the system can hold it to that."""
    try:
        import resource
    except ImportError:  # Windows has no such limit; the time limits hold there as well
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))


if __name__ == "__main__":
    _serve()
