"""Time scoring against lm-evaluation-harness, on the same model, numbers, questions and prompts; and `mcqa ask`.

    python benchmarks/scoring.py [--part mmlu] [--part cloze] [--part passages] [--part ask] [--dtype bf16|fp32]
                                 [--questions N] [--subject NAME] [--batch-size N ...] [--model FOLDER] [--data FOLDER]

mmlu: 5-shot, by letter, N questions of all subjects in FOLDER/mcqa/mmlu, or of those named. cloze: 0-shot, option texts, N of
FOLDER/mcqa/arc. passages: the same with three passages in the prompt, N questions of FOLDER/textbooks/introduction-sociology
with what Course.search finds in its PDF. FOLDER is ../shared/data or $MCQA_DATA; a part whose data is missing is skipped.
lm-evaluation-harness ("pip install lm-eval==0.4.13") runs as its `hf` model on a task file made from the prompts; its
batch size is the fastest of those given. Each side scores in a process of its own while the other does not run; the clock
covers tokenizing and scoring, not loading. `ask` times single questions with three passages, and says where the time goes.

Prints Markdown: questions a second, the ratio, how many predictions are the same, peak memory, tokens computed against tokens
in the prompts, and the share of this machine's measured matrix rate that our side reaches.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assistant.prompt import Prompt

# Beside this script lies ingest.py, which Python would take for the package of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"mmlu": "MMLU, 5-shot, letter", "cloze": "ARC-Easy, 0-shot, cloze", "passages": "sociology, 3 passages, cloze"}
BOOK = "introduction-sociology"
WARM_UP = 8  # prompts
COUNTED = 64  # prompts whose operations are counted, and timed once more
TRIED = 24  # prompts that find the other side's batch size


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*PARTS, "ask"], help="default: all")
    parser.add_argument("--dtype", action="append", choices=["bf16", "fp32"], help="default: both")
    parser.add_argument("--questions", type=int, default=200, help="of each part")
    parser.add_argument("--subject", action="append", default=[], help="of MMLU; may be repeated")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8], help="those of lm-evaluation-harness to try")
    parser.add_argument("--model", default=None, help="a model folder; default: the one that comes along")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "JOB", "BATCH", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, job, batch, result = arguments.side
        found = {"ours": _ours, "theirs": _theirs}[side](json.loads(Path(job).read_text(encoding="utf-8")), int(batch))
        Path(result).write_text(json.dumps(found), encoding="utf-8")
        return 0

    parts = arguments.part or [*PARTS, "ask"]
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for part in [part for part in parts if part != "ask"]:
            prompts = _prompts(part, arguments, Path(scratch))
            for dtype in (arguments.dtype or ["bf16", "fp32"]) if prompts else ():
                rows.append(_compared(part, prompts, dtype, arguments, Path(scratch)))
        _show(rows)
        if "ask" in parts:
            _ask(arguments, Path(scratch))
    return 0


def _prompts(part: str, arguments: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Return the prompts that both sides read, as records; none where the data is missing."""
    from assistant.answer import Assistant
    from assistant.items import read_items
    from assistant.model import load_model
    from assistant.prompt import render

    source = arguments.data / "mcqa" / ("mmlu" if part == "mmlu" else "arc/arc_easy_validation.json")
    if part == "passages":
        source = arguments.data / "textbooks" / f"{BOOK}.jsonl"
    if not source.exists():
        print(f"skipped: {part}: {source} is not here; name its folder with --data or MCQA_DATA\n")
        return []
    if part == "mmlu":
        items = read_items(source, shots=5, subjects=arguments.subject, limit=arguments.questions).items
        rendered = [render(item.mcq, (), "letter", item.examples) for item in items]
    else:
        items = read_items(source, limit=arguments.questions).items
        passages: list[list[str]] = [[] for _ in items]
        if part == "passages":
            assistant = Assistant(load_model(arguments.model), _course(arguments, scratch), scoring="cloze", passages=3)
            passages = [[hit.passage.text for hit in assistant.prepare(item.mcq)[0]] for item in items]
        rendered = [render(item.mcq, texts, "cloze") for item, texts in zip(items, passages, strict=True)]
    return [
        {"prefix": prompt.prefix, "continuations": prompt.continuations, "shared": prompt.shared, "key": item.key}
        for item, prompt in zip(items, rendered, strict=True)
    ]


def _course(arguments: argparse.Namespace, scratch: Path) -> Any:
    """Return the textbook's course, indexed below `scratch` at the first call."""
    from ingest.course import Course

    folder = scratch / "book"
    if not folder.exists():
        # The models that are converted already stay where they are.
        from ingest.home import home

        models = home() / "models"
        os.environ["MCQA_HOME"] = str(scratch / "home")
        (scratch / "home").mkdir()
        if models.is_dir():
            (scratch / "home" / "models").symlink_to(models)
        folder.mkdir()
        shutil.copy(arguments.data / "textbooks" / f"{BOOK}.pdf", folder)
    course = Course(BOOK)
    course.sync(folder)
    course.warm_up()
    return course


def _compared(
    part: str, prompts: Sequence[dict[str, Any]], dtype: str, arguments: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """Score the prompts on both sides; returns a row of the table."""
    from assistant.model import load_model

    lm = load_model(arguments.model)  # converted here, so that neither side has to
    folder = lm.model.name_or_path
    del lm
    job = scratch / f"{part}-{dtype}.json"
    scoring = "letter" if part == "mmlu" else "cloze"
    content = {"folder": str(folder), "dtype": dtype, "scoring": scoring, "prompts": prompts}
    job.write_text(json.dumps(content), encoding="utf-8")
    row: dict[str, Any] = {"part": PARTS[part], "dtype": dtype, "n": len(prompts), "ours": _apart("ours", job, 0)}
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        print("skipped: the other side, lm-evaluation-harness; pip install lm-eval==0.4.13\n")
        return row
    few = job.with_suffix(".few.json")
    few.write_text(json.dumps({**content, "prompts": prompts[:: max(1, len(prompts) // TRIED)]}), encoding="utf-8")
    tried = {size: _apart("theirs", few, size)["seconds"] for size in arguments.batch_size}
    row["theirs"] = _apart("theirs", job, min(tried, key=lambda size: tried[size]))
    same = sum(a == b for a, b in zip(row["ours"]["letters"], row["theirs"]["letters"], strict=True))
    return row | {"same": same}


def _apart(side: str, job: Path, batch: int) -> dict[str, Any]:
    result = job.with_suffix(f".{side}.{batch}.json")
    command = [sys.executable, __file__, "--side", side, str(job), str(batch), str(result)]
    quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _ours(job: dict[str, Any], _: int) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from assistant.model import load_model
    from assistant.prompt import Prompt
    from assistant.scoring import encode, score

    lm = load_model(job["folder"], dtype=job["dtype"])
    prompts = [Prompt(p["prefix"], tuple(p["continuations"]), p["shared"]) for p in job["prompts"]]
    score(lm, prompts[:WARM_UP], job["scoring"])
    before, started = lm.tokens_read, time.perf_counter()
    scores = []
    for block in _blocks(prompts):
        scores += [found.scores for found in score(lm, block, job["scoring"])]
    seconds, computed = time.perf_counter() - started, lm.tokens_read - before
    peak = _peak_bytes()
    encoded = [encode(lm, prompt) for prompt in prompts]
    if job["scoring"] == "letter":
        alone = sum(len(item.prefix) for item in encoded)
    else:
        alone = sum(len(item.prefix) + len(own) for item in encoded for own in item.continuations)
    blocks, threads = _blocks(prompts[:COUNTED]), torch.get_num_threads()
    torch.set_num_threads(1)  # so that nothing is computed in other threads, where it would not be counted
    with FlopCounterMode(display=False) as counter:
        for block in blocks:
            score(lm, block, job["scoring"])
    torch.set_num_threads(threads)
    started = time.perf_counter()
    for block in blocks:
        score(lm, block, job["scoring"])
    reached = counter.get_total_flops() / (time.perf_counter() - started)
    return {
        "seconds": seconds,
        "letters": [row.index(max(row)) for row in scores],
        "peak": peak,
        "computed": computed,
        "alone": alone,
        "share": reached / _matrix_rate(torch.bfloat16 if job["dtype"] == "bf16" else torch.float32),
    }


def _blocks(prompts: "Sequence[Prompt]") -> "list[list[Prompt]]":
    """Return the prompts as an evaluation takes them: so many together, of one subject."""
    from assistant.answer import TOGETHER

    subjects = [list(group) for _, group in groupby(prompts, key=lambda prompt: prompt.shared)]
    return [subject[start : start + TOGETHER] for subject in subjects for start in range(0, len(subject), TOGETHER)]


def _matrix_rate(dtype: Any) -> float:
    """Return this machine's operations a second on large square matrices, the best of five."""
    import torch

    size = 2048
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _theirs(job: dict[str, Any], batch: int) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Timed(HFLM):  # type: ignore[misc]
        """The harness's model, with a clock around what scoring takes."""

        seconds = 0.0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            """Score the requests."""
            started = time.perf_counter()
            found = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
            self.seconds += time.perf_counter() - started
            return found

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "prompts.json"
        records = [
            {"prefix": p["prefix"], "choices": p["continuations"], "gold": "ABCDEFGHIJ".index(p["key"])} for p in job["prompts"]
        ]
        data.write_text(json.dumps(records), encoding="utf-8")
        task = {
            "task": "prompts", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "prefix", "doc_to_target": "gold",
            "doc_to_choice": "choices", "target_delimiter": "", "metric_list": [{"metric": "acc"}],
        }  # fmt: skip
        name = {"bf16": "bfloat16", "fp32": "float32"}[job["dtype"]]
        lm = Timed(pretrained=job["folder"], dtype=name, device="cpu", batch_size=batch)
        manager = TaskManager(include_defaults=False)
        warm = simple_evaluate(lm, tasks=[task], limit=WARM_UP, task_manager=manager, bootstrap_iters=0)
        assert warm
        lm.seconds = 0.0
        found = simple_evaluate(lm, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["prompts"], key=lambda sample: sample["doc_id"])
    logs = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]
    return {"seconds": lm.seconds, "letters": [row.index(max(row)) for row in logs], "peak": _peak_bytes(), "batch": batch}


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _show(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print(
        "| task | numbers | n | questions/s | lm-eval, questions/s (batch) | ratio | same predictions | "
        "peak GiB, ours and theirs | "
        "tokens computed of those in the prompts | share of the matrix rate |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ours, theirs, n = row["ours"], row.get("theirs"), row["n"]
        memory = f"{ours['peak'] / 2**30:.2f}"
        other = ratio = same = "-"
        if theirs:
            other = f"{n / theirs['seconds']:.2f} ({theirs['batch']})"
            ratio = f"{theirs['seconds'] / ours['seconds']:.1f}"
            same = f"{100 * row['same'] / n:.1f} %"
            memory += f", {theirs['peak'] / 2**30:.2f}"
        saved = f"{ours['computed']:,} of {ours['alone']:,} ({100 * ours['computed'] / ours['alone']:.0f} %)"
        print(
            f"| {row['part']} | {row['dtype']} | {n} | {n / ours['seconds']:.2f} | {other} | {ratio} | {same} | {memory} "
            f"| {saved} | {100 * ours['share']:.0f} % |"
        )
    print()


def _ask(arguments: argparse.Namespace, scratch: Path) -> None:
    """Time single questions, warm, and the parts of each."""
    from assistant import answer as answering
    from assistant import scoring
    from assistant.answer import Assistant
    from assistant.items import read_items
    from assistant.model import load_model

    source = arguments.data / "textbooks" / f"{BOOK}.jsonl"
    if not source.exists():
        print(f"skipped: ask: {source} is not here; name its folder with --data or MCQA_DATA")
        return
    course = _course(arguments, scratch)
    lm = load_model(arguments.model)
    assistant = Assistant(lm, course, passages=3)
    spent: dict[str, float] = {}

    def timed(name: str, function: Any) -> Any:
        @wraps(function)  # what it takes stays visible
        def run(*values: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*values, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

        return run

    mcqs = [item.mcq for item in read_items(source, limit=arguments.questions + WARM_UP).items]
    for mcq in mcqs[:WARM_UP]:
        assistant.answer(mcq)
    course.search = timed("search", course.search)
    lm.model.forward = timed("forward pass", lm.model.forward)
    answering.encode = scoring.encode = timed("tokens", scoring.encode)  # type: ignore[attr-defined]
    parts: dict[str, list[float]] = {}
    totals, tokens = [], []
    for mcq in mcqs[WARM_UP:]:
        spent.clear()
        before, started = lm.tokens_read, time.perf_counter()
        assistant.answer(mcq)
        total = time.perf_counter() - started
        totals.append(total)
        tokens.append(lm.tokens_read - before)
        for name, seconds in {**spent, "the rest": total - sum(spent.values())}.items():
            parts.setdefault(name, []).append(seconds)
    totals.sort()
    print(
        f"`ask`, {lm.summary.split(',')[0]}, {str(lm.dtype).removeprefix('torch.')}, three passages, n = {len(totals)}:",
        end=" ",
    )
    print(f"p50 {statistics.median(totals):.3f} s, p95 {totals[int(0.95 * len(totals))]:.3f} s;", end=" ")
    print(f"{statistics.mean(tokens):.0f} tokens a question; medians:", end=" ")
    print(", ".join(f"{name} {1000 * statistics.median(values):.0f} ms" for name, values in parts.items()))


if __name__ == "__main__":
    sys.exit(main())
