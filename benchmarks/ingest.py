"""Time indexing beside the usual LangChain pipeline on the same PDFs, and how it grows with the number of pages.

    python benchmarks/ingest.py [--data FOLDER] [--books NAME ...] [--pages N] [--repeat N] [--skip-langchain]
    python benchmarks/ingest.py --growth 100 500 1000 2000 4000 [--plot FILE.png]

FOLDER/textbooks/NAME.pdf are read (default: two books below ../shared/data or $MCQA_DATA). Prints Markdown.

What is compared. LangChain: PyPDFDirectoryLoader, RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200) and
Chroma.from_documents with HuggingFaceEmbeddings on the very weights that this project uses, at its default settings. This
project: Course.sync. Each side runs in a process of its own that loads its models first, which is timed apart; the sides
take turns, and the figures are medians over --repeat turns.

Passages differ in length (1,000 characters there, at most 120 tokens here), so pages a second are what compares; passages a
second tell about one side only. The usual pipeline knows no "unchanged": running it again does everything again and stores
everything twice, which is its row. Its best case, langchain_core.indexing.index with a record manager, still reads and splits
every file and embeds what changed (all of a file that lost a page, since each page's metadata holds the number of pages); it
is timed over vectors kept in memory, so without the cost of a database.

Memory is the sum over the process and the workers it starts, sampled five times a second; what processes share counts for
each of them, so it is an upper bound. Where there is no /proc, it is the sum of the peaks that the system reports.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# This script is named like the package that it measures, which Python would look for in the script's own folder first.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

LANGCHAIN = ["langchain_community", "langchain_chroma", "langchain_huggingface"]
INSTALL = "pip install langchain-community langchain-chroma langchain-huggingface"
FILE_PAGES = 50  # pages a file of a folder that --growth makes

FIRST, AGAIN, CHANGED = "from nothing", "again, nothing changed", "again, one file changed"
BEST_AGAIN, BEST_CHANGED = f"{AGAIN} (best case)", f"{CHANGED} (best case)"


def main() -> int:
    """Run the benchmark; returns the exit status."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", nargs="+", default=["american-government", "introduction-sociology"])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or root.parent / "shared" / "data"))
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages of each book")
    parser.add_argument("--repeat", type=int, default=1, help="turns of each side; medians are shown")
    parser.add_argument("--skip-langchain", action="store_true", help="only this project's side")
    parser.add_argument("--growth", type=int, nargs="+", metavar="PAGES", help="only this project's side, at these sizes")
    parser.add_argument("--plot", type=Path, help="with --growth: draw the figures into this file (needs matplotlib)")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # what the processes that are measured are started with
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        (_langchain if arguments.side == "langchain" else _ours)(arguments.work)
        return 0
    textbooks = arguments.data / "textbooks"
    books = sorted(textbooks.glob("*.pdf")) if arguments.growth else [textbooks / f"{name}.pdf" for name in arguments.books]
    if not books or not all(book.is_file() for book in books):
        missing = ", ".join(str(book) for book in books if not book.is_file()) or f"{textbooks}/*.pdf"
        print(f"skipped: {missing} not here; name the folder with --data or MCQA_DATA")
        return 0
    if arguments.growth:
        _growth(books, arguments.growth, arguments.plot)
    else:
        _compare(books, arguments.pages, arguments.repeat, arguments.skip_langchain)
    return 0


def _compare(books: list[Path], pages: int | None, repeat: int, skip_langchain: bool) -> None:
    sides = ["mcqa"] if skip_langchain else ["langchain", "mcqa"]
    missing = [name for name in LANGCHAIN if not importlib.util.find_spec(name)]
    if missing and not skip_langchain:
        print(f"Without the LangChain side: {', '.join(missing)} not installed; run: {INSTALL}\n")
        sides = ["mcqa"]
    turns: dict[str, list[dict[str, dict[str, float]]]] = {side: [] for side in sides}
    for turn in range(repeat):
        for side in sides if turn % 2 == 0 else reversed(sides):
            with tempfile.TemporaryDirectory() as work:
                _prepare(books, pages, Path(work))
                turns[side].append(_measure(side, Path(work)))
    results = {side: _medians(measured) for side, measured in turns.items()}
    print(f"## {', '.join(book.stem for book in books)}{f', the first {pages} pages of each' if pages else ''}\n")
    print(f"Medians of {repeat} turn{'s' if repeat > 1 else ''}; {os.cpu_count()} processor cores.\n")
    _print_comparison(results)
    ours = results["mcqa"]
    each = ours[FIRST]["seconds"] / ours[FIRST]["pages"]
    print(
        f"\nThe changed file has {ours[CHANGED]['pages']:.0f} of the {ours[FIRST]['pages']:.0f} pages: "
        f"{ours[CHANGED]['seconds'] / ours[CHANGED]['pages']:.3f} s a page of it, {each:.3f} s a page from nothing."
    )


def _print_comparison(results: dict[str, dict[str, dict[str, float]]]) -> None:
    def row(name: str, phase: str, key: str, form: str, better: str = "", ours: str = "") -> None:
        """Print one row; `better` is "less" or "more" where a ratio makes sense, and it is above 1 where mcqa is better."""
        values = {side: results[side].get(ours if ours and side == "mcqa" else phase, {}).get(key) for side in results}
        cells = ["" if value is None else form.format(value) for value in values.values()]
        theirs, mine = values.get("langchain"), values["mcqa"]
        ratio = ""
        if better and theirs and mine:
            ratio = f"{theirs / mine if better == 'less' else mine / theirs:.2f}"
        print(f"| {' | '.join([name, *cells, *([ratio] if len(results) > 1 else [])])} |")

    heads = ["", *results, *(["ratio"] if len(results) > 1 else [])]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    row("loading the models, s", "load", "seconds", "{:.1f}", "less")
    row("pages", FIRST, "pages", "{:.0f}")
    row("passages", FIRST, "passages", "{:.0f}")
    row(f"{FIRST}, s", FIRST, "seconds", "{:.1f}", "less")
    row("pages/s", FIRST, "pages_per_second", "{:.1f}", "more")
    row("passages/s", FIRST, "passages_per_second", "{:.1f}")
    row("peak memory, GiB", FIRST, "peak", "{:.2f}", "less")
    row("of it with the models loaded, GiB", "load", "peak", "{:.2f}")
    row("index on disk, MiB", FIRST, "disk", "{:.0f}", "less")
    row(f"{AGAIN}, s", AGAIN, "seconds", "{:.3f}", "less")
    row("passages in the index then", AGAIN, "held", "{:.0f}")
    if "langchain" in results:
        row(f"{BEST_AGAIN}, s", BEST_AGAIN, "seconds", "{:.3f}", "less", AGAIN)
        row(f"{BEST_CHANGED}, s", BEST_CHANGED, "seconds", "{:.1f}", "less", CHANGED)
    else:
        row(f"{CHANGED}, s", CHANGED, "seconds", "{:.1f}")
    row("passages embedded for it", BEST_CHANGED, "embedded", "{:.0f}", "", CHANGED)


def _growth(books: list[Path], sizes: list[int], plot: Path | None) -> None:
    rows = []
    print(f"## Folders of files of {FILE_PAGES} pages\n")
    print("| pages | passages | seconds | pages/s | passages/s | peak memory, GiB | with the models loaded | on disk, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as work:
            _make_folder(books, size, Path(work) / "books")
            measured = _measure("mcqa", Path(work))
        first = measured[FIRST]
        rows.append(first)
        print(
            f"| {first['pages']:.0f} | {first['passages']:.0f} | {first['seconds']:.1f} | {first['pages_per_second']:.1f} "
            f"| {first['passages_per_second']:.1f} | {first['peak']:.2f} | {measured['load']['peak']:.2f} "
            f"| {first['disk']:.0f} |",
            flush=True,
        )
    if plot:
        _draw(rows, plot)


def _draw(rows: list[dict[str, float]], plot: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("\nNo plot: matplotlib is not installed; run: pip install matplotlib")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    pages = [row["pages"] for row in rows]
    labels = {"seconds": "seconds", "peak": "peak memory, GiB"}
    for panel, (key, label), color in zip(panels, labels.items(), ("tab:blue", "tab:orange"), strict=True):
        values = [row[key] for row in rows]
        panel.plot(pages, values, marker="o", color=color)
        panel.set(xlabel="pages indexed", ylabel=label, xlim=(0, 1.06 * max(pages)), ylim=(0, 1.1 * max(values)))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(plot, dpi=150)
    print(f"\nDrawn into {plot}.")


def _prepare(books: list[Path], pages: int | None, work: Path) -> None:
    """Lay out `work`: the books in books/, and in changed/ the last of them without its last page."""
    import pypdfium2

    for folder in ("books", "changed"):
        (work / folder).mkdir()
    for book in books:
        if pages:
            with pypdfium2.PdfDocument(book) as source:
                _write([(source, range(min(pages, len(source))))], work / "books" / book.name)
        else:
            shutil.copyfile(book, work / "books" / book.name)
    with pypdfium2.PdfDocument(work / "books" / books[-1].name) as source:
        _write([(source, range(max(1, len(source) - 1)))], work / "changed" / books[-1].name)


def _make_folder(books: list[Path], size: int, folder: Path) -> None:
    """Fill `folder` with `size` pages of the books, in files of FILE_PAGES; after the last page, again in another order."""
    import pypdfium2

    folder.mkdir()
    sources = [pypdfium2.PdfDocument(book) for book in books]
    order = [(source, page) for source in sources for page in range(len(source))]
    shuffled = random.Random(0)
    pages: list[tuple[Any, int]] = []
    while len(pages) < size:
        pages += order
        order = shuffled.sample(order, len(order))
    for start in range(0, size, FILE_PAGES):
        part = pages[start : min(size, start + FILE_PAGES)]
        _write([(source, [page]) for source, page in part], folder / f"{start // FILE_PAGES:04}.pdf")
    for source in sources:
        source.close()


def _write(parts: list[tuple[Any, Any]], target: Path) -> None:
    """Write a PDF of `parts`, pairs of a source and numbers of its pages. Outlines and links stay behind."""
    import pypdfium2

    with pypdfium2.PdfDocument.new() as made:
        for source, numbers in parts:
            made.import_pages(source, list(numbers))
        made.save(target)


def _measure(side: str, work: Path) -> dict[str, dict[str, float]]:
    """Run one side in a process of its own and return what it reported for each phase, with the peak memory so far."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, "--work", str(work)]
    environment = {**os.environ, "MCQA_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False"}
    phases: dict[str, dict[str, float]] = {}
    with (work / "errors").open("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        peak, stop = [0.0], threading.Event()

        def sample() -> None:
            while not stop.wait(0.2):
                peak[0] = max(peak[0], _memory_of_tree(process.pid))

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        for line in process.stdout or ():
            if line.startswith('{"phase"'):
                report = json.loads(line)
                report["peak"] = max(peak[0], _memory_of_tree(process.pid)) or report.pop("reported_peak")
                phases[report.pop("phase")] = report
                if sys.stderr.isatty():
                    print(f"{side}: {line.strip()}", file=sys.stderr)
        status = process.wait()
        stop.set()
        sampler.join()
        if status:
            errors.seek(0)
            raise SystemExit(f"the {side} side failed with status {status}:\n{errors.read()[-3000:]}")
    return phases


def _memory_of_tree(root: int) -> float:
    """Return the resident memory of a process and all below it, in GiB; 0 where there is no /proc."""
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold spaces; the parent is the second field after it, the pages the 22nd.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)], sizes[int(folder.name)] = int(fields[1]), int(fields[21])
    total = 0
    for process in parents:
        above = process
        while above != root and above in parents:
            above = parents[above]
        total += sizes[process] if above == root else 0
    return total * resource.getpagesize() / 2**30


def _medians(measured: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        phase: {key: statistics.median(turn[phase][key] for turn in measured) for key in measured[0][phase]}
        for phase in measured[0]
    }


# What follows runs in the processes that are measured.


def _tell(phase: str, seconds: float, **more: float) -> None:
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    if "pages" in more and "passages" in more:
        more |= {"pages_per_second": more["pages"] / seconds, "passages_per_second": more["passages"] / seconds}
    print(json.dumps({"phase": phase, "seconds": seconds, "reported_peak": sum(peaks) / unit, **more}), flush=True)


def _disk(folder: Path) -> float:
    """Return the size of a folder in MiB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def _change(work: Path) -> bool:
    """Put the changed file in its place; returns whether there is one."""
    changed = list((work / "changed").glob("*.pdf"))
    for file in changed:
        shutil.copyfile(file, work / "books" / file.name)
    return bool(changed)


def _ours(work: Path) -> None:
    started = time.perf_counter()
    from ingest.course import Course

    course = Course("bench")
    course.warm_up()
    _tell("load", time.perf_counter() - started)

    def sync(phase: str) -> None:
        report = course.sync(work / "books")
        if report.failed:
            raise SystemExit(f"not read: {report.failed}")
        held = sum(record.passages for record in course.documents())
        disk = _disk(work / "home" / "courses")
        counts = {"pages": report.pages, "passages": report.passages}
        _tell(phase, report.seconds, **counts, embedded=report.embedded, held=held, disk=disk)

    sync(FIRST)
    sync(AGAIN)
    if _change(work):
        sync(CHANGED)


def _langchain(work: Path) -> None:
    started = time.perf_counter()
    import torch  # noqa: F401 -- first, so that nothing of this project has a say in how it runs
    from langchain_chroma import Chroma
    from langchain_community.document_loaders import PyPDFDirectoryLoader
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.indexing import InMemoryRecordManager, index
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    from ingest.embed import _INSTALL, _PACKAGE, _WEIGHTS
    from ingest.weights import packaged_file

    weights = packaged_file(_PACKAGE, _WEIGHTS, install=_INSTALL)
    embeddings = HuggingFaceEmbeddings(model_name=str(weights.parent), encode_kwargs={"normalize_embeddings": True})
    _tell("load", time.perf_counter() - started)
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)

    def read() -> Iterator[Any]:
        pages = PyPDFDirectoryLoader(str(work / "books"), recursive=True).load()
        yield len(pages)
        yield splitter.split_documents(pages)

    for phase in (FIRST, AGAIN):
        started = time.perf_counter()
        pages, chunks = read()
        database = Chroma.from_documents(chunks, embeddings, persist_directory=str(work / "chroma"))
        seconds = time.perf_counter() - started
        held = len(database.get(include=[])["ids"])
        _tell(phase, seconds, pages=pages, passages=len(chunks), held=held, disk=_disk(work / "chroma"))

    # The best case: the manager knows all chunks already, here from a run that is not timed and embeds nothing real.
    vectors, manager = InMemoryVectorStore(DeterministicFakeEmbedding(size=2)), InMemoryRecordManager("bench")
    manager.create_schema()
    # "full" and not "incremental", which embeds much of an unchanged file again where the file fills several batches.
    options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    index(list(read())[1], manager, vectors, **options)
    vectors.embedding = embeddings
    for phase in (BEST_AGAIN, BEST_CHANGED):
        if phase == BEST_CHANGED and not _change(work):
            return
        started = time.perf_counter()
        result = index(list(read())[1], manager, vectors, **options)
        _tell(phase, time.perf_counter() - started, embedded=result["num_added"])


if __name__ == "__main__":
    sys.exit(main())
