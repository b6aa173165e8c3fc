"""Reading files in workers: what one file does must not cost the others, nor the machine."""

import array
import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import termios
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import fakes
import pytest
from fakes import prose

import ingest.read
from ingest.document import DocumentText
from ingest.errors import UnreadableDocumentError
from ingest.read import FileRead, Limits, PagesRead, ReadOptions, read_documents

_GIGABYTE = 2**30


@pytest.fixture
def good(tmp_path: Path) -> list[tuple[str, Path]]:
    """Three files that nothing is wrong with."""
    names = ["one.txt", "two.md", "three.txt"]
    for name in names:
        (tmp_path / name).write_text(prose(name), encoding="utf-8")
    return [(name, tmp_path / name) for name in names]


DEFAULTS = ReadOptions()


def read(files: Sequence[tuple[str, Path]], options: ReadOptions = DEFAULTS, workers: int | None = None) -> dict[str, str]:
    """Return the status of each file, "read" where its text came."""
    found: dict[str, str] = {}
    for event in read_documents(files, options, workers):
        if isinstance(event, FileRead):
            assert event.name not in found
            found[event.name] = "read" if isinstance(event.result, DocumentText) else event.result.status
    return found


def hanging(path: Path) -> tuple[str, Path]:
    """Make a file that cannot be read to its end: a pipe that nobody writes to."""
    os.mkfifo(path)
    return path.name, path


def workers() -> list[int]:
    """Return the ids of this process's workers."""
    found = []
    for child in fakes.children(os.getpid()):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if b"ingest.read" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def test_each_file_is_read_once_and_its_text_is_its_own(good: list[tuple[str, Path]]) -> None:
    results = {event.name: event.result for event in read_documents(good, ReadOptions()) if isinstance(event, FileRead)}
    assert set(results) == {"one.txt", "two.md", "three.txt"}
    for name, result in results.items():
        assert isinstance(result, DocumentText)
        assert f"about {name}" in result.pages[0].text


def test_a_file_that_hangs_is_stopped_and_costs_no_other(tmp_path: Path, good: list[tuple[str, Path]]) -> None:
    started = time.monotonic()
    files = [hanging(tmp_path / "hangs.txt"), *good, hanging(tmp_path / "hangs too.txt")]
    found = read(files, ReadOptions(limits=Limits(seconds=2)))
    assert found == {
        "hangs.txt": "stopped",
        "one.txt": "read",
        "two.md": "read",
        "three.txt": "read",
        "hangs too.txt": "stopped",
    }
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_costs_the_file_it_was_at_and_no_other(
    tmp_path: Path, good: list[tuple[str, Path]], number: signal.Signals
) -> None:
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 20
        while not killed and time.monotonic() < end:
            for child in workers():
                time.sleep(0.5)  # it comes to the file
                os.kill(child, number)
                killed.append(child)

    killer = threading.Thread(target=kill)
    killer.start()
    found = read([hanging(tmp_path / "hangs.txt"), *good], workers=1)
    killer.join()
    assert len(killed) == 1
    assert found == {"hangs.txt": "stopped", "one.txt": "read", "two.md": "read", "three.txt": "read"}


def test_a_worker_that_dies_amid_its_answer_costs_that_file_alone(
    tmp_path: Path, good: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "long.txt"
    long.write_text(prose("long") * 100, encoding="utf-8")  # far more than a pipe holds
    pump = ingest.read._pump
    amid: list[bool] = []

    def kill_first(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
        """Kill the first worker when its answer fills half of the pipe, before anything is taken."""
        if not amid:
            assert process.stdout is not None
            held, half = array.array("i", [0]), fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ) // 2
            end = time.monotonic() + 60
            while held[0] < half and time.monotonic() < end:
                time.sleep(0.01)
                fcntl.ioctl(process.stdout, termios.FIONREAD, held)
            os.kill(process.pid, signal.SIGKILL)
            amid.append(held[0] >= half)
        pump(process, lines)

    monkeypatch.setattr(ingest.read, "_pump", kill_first)
    found = read([("long.txt", long), *good], workers=1)
    assert amid == [True]
    assert found == {"long.txt": "stopped", "one.txt": "read", "two.md": "read", "three.txt": "read"}


def test_a_reading_that_nobody_waits_for_leaves_no_worker(tmp_path: Path, good: list[tuple[str, Path]]) -> None:
    before = set(fakes.children(os.getpid()))
    events = read_documents([*good, hanging(tmp_path / "hangs.txt")], ReadOptions())
    assert isinstance(events, Generator)
    next(events)
    started = time.monotonic()
    events.close()
    assert time.monotonic() - started < 5
    assert set(fakes.children(os.getpid())) <= before


def test_pages_are_told_of_in_order(folder: Path) -> None:
    files = [(path.name, path) for path in sorted(folder.iterdir())]
    told: dict[str, list[tuple[int, int]]] = {}
    for event in read_documents(files, ReadOptions()):
        if isinstance(event, PagesRead):
            told.setdefault(event.name, []).append((event.done, event.total))
    assert set(told) == {name for name, _ in files}
    for steps in told.values():
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]


def zeros(size: int) -> bytes:
    """Return `size` zero bytes as a zlib stream, without ever having them: one megabyte's stream, again and again."""
    compressor = zlib.compressobj(9)
    compressor.compress(b"")
    piece = bytes(2**20)
    first = compressor.compress(piece) + compressor.flush(zlib.Z_FULL_FLUSH)
    again = compressor.compress(piece) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = (size % 65521) << 16 | 1  # Adler-32 of zeros
    return first + again * (size // 2**20 - 1) + b"\x03\x00" + checksum.to_bytes(4, "big")


def pdf_bomb(path: Path, size: int) -> None:
    """Write a small PDF whose one page's content unpacks to `size` bytes."""
    content = zeros(size)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (table, len(out))
    path.write_bytes(out)


def docx_bomb(path: Path, size: int) -> None:
    """Write a small DOCX whose one paragraph unpacks to `size` bytes."""
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{relation}" Target="word/document.xml"/></Relationships>',
        )
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(f'<w:document xmlns:w="{namespace}"><w:body><w:p><w:r><w:t>'.encode())
            for _ in range(size // 2**20):
                part.write(b"boom " * (2**20 // 5))
            part.write(b"</w:t></w:r></w:p></w:body></w:document>")


def measured(
    files: Sequence[tuple[str, Path]], tmp_path: Path, options: ReadOptions = DEFAULTS
) -> tuple[dict[str, tuple[str, str, float]], float]:
    """Read files in a process whose children are these workers alone; return what came of each, and the peak."""
    process = fakes.process(fakes.read_one_by_one, files, options, tmp_path / "outcome")
    process.join()
    assert process.exitcode == 0
    outcome = json.loads((tmp_path / "outcome").read_text())
    return {name: tuple(values) for name, values in outcome["files"].items()}, outcome["megabytes"]


@pytest.mark.parametrize("make", [pdf_bomb, docx_bomb])
def test_a_small_file_that_unpacks_to_gigabytes_is_named_and_costs_no_other(
    tmp_path: Path, good: list[tuple[str, Path]], make: Callable[[Path, int], None]
) -> None:
    bomb = tmp_path / f"bomb.{make.__name__.split('_')[0]}"
    make(bomb, _GIGABYTE * (2 if make is pdf_bomb else 1))
    assert bomb.stat().st_size < 16 * 2**20
    options = ReadOptions()
    found, megabytes = measured([good[0], (bomb.name, bomb), *good[1:]], tmp_path, options)
    status, reason, seconds = found.pop(bomb.name)
    assert status in ("stopped", "damaged", "no text")
    assert reason
    assert seconds < 60
    assert {name: result[0] for name, result in found.items()} == {"one.txt": "read", "two.md": "read", "three.txt": "read"}
    assert megabytes < options.limits.megabytes


def test_damaged_files_end_in_a_named_outcome_in_bounded_time_and_memory(data: Path, tmp_path: Path) -> None:
    files = [(path.name, path) for path in sorted((data / "pdf" / "damaged").glob("*.pdf"))]
    assert len(files) > 50
    found, megabytes = measured(files, tmp_path)
    assert set(found) == {name for name, _ in files}
    for name, (status, reason, seconds) in found.items():
        assert status in ("read", "damaged", "encrypted", "no text", "stopped"), name
        assert status == "read" or reason, name
        assert seconds < 60, name
    assert sum(status == "read" for status, _, _ in found.values()) > len(files) / 2
    assert megabytes < 1024


def test_a_file_that_is_gone_or_no_file_is_named(tmp_path: Path, good: list[tuple[str, Path]]) -> None:
    (tmp_path / "folder.txt").mkdir()
    found = read([("gone.pdf", tmp_path / "gone.pdf"), ("folder.txt", tmp_path / "folder.txt"), *good])
    assert {name for name, status in found.items() if status == "read"} == {"one.txt", "two.md", "three.txt"}
    assert len(found) == 5


def test_an_error_says_what_and_why() -> None:
    error = UnreadableDocumentError("damaged", "it is cut off")
    assert (error.status, error.reason, str(error)) == ("damaged", "it is cut off", "it is cut off")
