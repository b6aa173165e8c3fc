"""Time preference tuning against TRL's own DPOTrainer, on the same model, numbers, pairs and settings.

    python benchmarks/training.py [--part hh] [--part llamafactory] [--dtype bf16|fp32] [--steps N] [--model FOLDER]
                                  [--data FOLDER]

LoRA of rank 16 on all linear layers, batch 1, accumulation 4, no gradient checkpointing: N steps are one epoch over 4 N pairs
of FOLDER/preference, drawn at random; FOLDER is ../shared/data or $MCQA_DATA, and a part whose data is missing is skipped. Each
side trains in a process of its own while the others do not run: ours, TRL as it comes (the reference is computed at every
step), and TRL with `precompute_ref_log_probs`. All read the same token ids in the same order. The clock covers steps, the first
left out; what comes before them, loading and computing references ahead of time, is measured apart.

Prints Markdown: seconds a step, without and with the share of references computed ahead of one epoch; where they go; the ratio;
peak memory; and the losses of every step, with the largest difference between the sides.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.pairs import Pair
    from training.recipe import DPO

# Beside this script lies ingest.py, and it is called training.py: Python would take them for the packages of that name.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "hh": ("hh-rlhf, harmless", "hh-rlhf/harmless-base-1500.jsonl.gz"),
    "llamafactory": ("LLaMA-Factory, English", "llamafactory/dpo_en_demo.json"),
}
SIDES = {"ours": "ours", "theirs": "TRL", "ahead": "TRL, references ahead"}
LONGEST = 1024  # tokens, prompt and one answer
ACCUMULATION = 4


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    parser.add_argument("--dtype", action="append", choices=["bf16", "fp32"], help="default: both")
    parser.add_argument("--steps", type=int, default=8, help="of each side, the first of which is not timed")
    parser.add_argument("--model", default=None, help="a model folder; default: the one that comes along")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MCQA_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "JOB", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, job, result = arguments.side
        found = _run(side, json.loads(Path(job).read_text(encoding="utf-8")))
        Path(result).write_text(json.dumps(found), encoding="utf-8")
        return 0
    rows = []
    for part in arguments.part or list(PARTS):
        name, file = PARTS[part]
        source = arguments.data / "preference" / file
        if not source.exists():
            print(f"skipped: {part}: {source} is not here; name its folder with --data or MCQA_DATA\n")
            continue
        for dtype in arguments.dtype or ["fp32", "bf16"]:
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(_compared(name, source, dtype, arguments, Path(scratch)))
            _show_steps(rows[-1])
    _show(rows)
    return 0


def _compared(name: str, source: Path, dtype: str, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Train all sides on the same pairs; returns what the tables show."""
    from assistant.model import load_model

    folder = load_model(arguments.model).model.name_or_path  # converted here, so that no side has to
    job = {"folder": folder, "dtype": dtype, "source": str(source), "steps": arguments.steps, "scratch": str(scratch)}
    file = scratch / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    # Nothing computed before may be found: references are kept in the application's data folder.
    quiet = {
        **os.environ, "MCQA_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "cache"),
        "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1",
    }  # fmt: skip
    row: dict[str, Any] = {"name": name, "dtype": dtype}
    for side in SIDES:
        result = scratch / f"{side}.json"
        command = [sys.executable, __file__, "--side", side, str(file), str(result)]
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{side}: {done.stderr[-3000:]}")
        row[side] = json.loads(result.read_text(encoding="utf-8"))
    return row


def _pairs(job: dict[str, Any], tokenizer: Any) -> "list[Pair]":
    """Return the pairs to train on: as many as the steps take, none of which is left out as too long."""
    from training.preferences import read_preferences
    from training.rows import pair_rows

    known = [row.pair for row in read_preferences(Path(job["source"])) if row.pair is not None]
    random.Random(0).shuffle(known)
    wanted = ACCUMULATION * job["steps"]
    usable: list[Pair] = []
    for pair in known:
        differ = pair.chosen.strip() and pair.rejected.strip() and pair.chosen != pair.rejected
        if differ and pair_rows([pair], tokenizer, "chat", LONGEST).encoded:
            usable.append(pair)
        if len(usable) == wanted:
            return usable
    raise SystemExit(f"{job['source']} has {len(usable)} usable pairs; give fewer --steps")


def _stage(job: dict[str, Any]) -> "DPO":
    from training.recipe import DPO, Adapter, File, Fitting

    fitting = Fitting(
        learning_rate=1e-4, max_steps=job["steps"], accumulation=ACCUMULATION, precision=job["dtype"], max_length=LONGEST,
        loggers=(),
    )  # fmt: skip
    return DPO(kind="dpo", data=(File(file=Path(job["source"])),), fitting=fitting, adapter=Adapter(rank=16, alpha=32))


def _run(side: str, job: dict[str, Any]) -> dict[str, Any]:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when each step began and ended."""

        def __init__(self) -> None:
            self.began: list[float] = []
            self.ended: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended.append(time.perf_counter())

    clock = Clock()
    trainer, before, rows = {"ours": _ours, "theirs": _theirs, "ahead": _theirs}[side](job, clock, side == "ahead")
    spent = {"forward": 0.0, "backward": 0.0}
    trainer.compute_loss = _timed(trainer.compute_loss, spent, "forward", clock.ended)
    trainer.accelerator.backward = _timed(trainer.accelerator.backward, spent, "backward", clock.ended)
    trainer.train()
    steps = [end - begin for begin, end in zip(clock.began, clock.ended, strict=True)][1:]
    return {
        "seconds": statistics.mean(steps),
        "before": before / job["steps"],
        "spent": {name: seconds / len(steps) for name, seconds in spent.items()},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak": int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024,
        "tokens": [
            sum(len(row.prefix) for row in rows) / len(rows),
            sum(len(answer) for row in rows for answer in row.continuations) / len(rows) / 2,
        ],
        "pairs": len(rows),
    }


def _timed(function: Callable[..., Any], spent: dict[str, float], name: str, ended: Sequence[float]) -> Callable[..., Any]:
    """Return `function` with a clock around it, which does not count during the first step."""

    def run(*values: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = function(*values, **named)
        spent[name] += (time.perf_counter() - began) * bool(ended)
        return found

    return run


def _ours(job: dict[str, Any], clock: Any, _: bool) -> tuple[Any, float, list[Any]]:
    """Return our trainer, the seconds that its references took, and the rows."""
    from transformers import AutoTokenizer

    from training.dpo import dpo_trainer
    from training.loop import Job
    from training.rows import pair_rows

    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    pairs = _pairs(job, tokenizer)
    here = Job(Path(job["scratch"]) / "ours", job["folder"], "llama")
    trainer, _lm, known = dpo_trainer(_stage(job), here, pairs, [], [clock])
    trainer.args.save_strategy = "no"
    assert not known["reference"]["reused"]
    return trainer, known["reference"]["seconds"], pair_rows(pairs, tokenizer, "chat", LONGEST).encoded


def _theirs(job: dict[str, Any], clock: Any, ahead: bool) -> tuple[Any, float, list[Any]]:
    """Return TRL's trainer, the seconds that references took ahead of training, and the rows."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from assistant.model import load_model
    from training.loop import adapter_config
    from training.rows import pair_rows

    class Tokenized(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on rows that are tokenized already; computing references ahead is timed."""

        seconds = 0.0

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *values: Any) -> Any:
            began = time.perf_counter()
            found = super()._precompute_ref_logps(*values)
            self.seconds += time.perf_counter() - began
            return found

    stage = _stage(job)
    lm = load_model(job["folder"], dtype=job["dtype"])
    rows = pair_rows(_pairs(job, lm.tokenizer), lm.tokenizer, "chat", LONGEST).encoded
    settings = DPOConfig(
        str(Path(job["scratch"]) / "theirs"), per_device_train_batch_size=1, gradient_accumulation_steps=ACCUMULATION,
        max_steps=job["steps"], learning_rate=stage.fitting.learning_rate, beta=stage.beta, bf16=job["dtype"] == "bf16",
        activation_checkpointing=False, max_length=LONGEST, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
        seed=0, data_seed=0, disable_tqdm=True, dataloader_pin_memory=False, precompute_ref_log_probs=ahead,
    )  # fmt: skip
    data = Dataset.from_dict({
        "prompt_ids": [row.prefix for row in rows],
        "chosen_ids": [row.continuations[0] for row in rows],
        "rejected_ids": [row.continuations[1] for row in rows],
    })  # fmt: skip
    assert stage.adapter is not None
    trainer = Tokenized(
        lm.model, args=settings, train_dataset=data, processing_class=lm.tokenizer, callbacks=[clock],
        peft_config=adapter_config(lm.model, stage.adapter, "llama"),
    )  # fmt: skip
    return trainer, trainer.seconds, rows


def _show_steps(row: dict[str, Any]) -> None:
    ours, theirs = row["ours"]["losses"], row["theirs"]["losses"]
    apart = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    print(f"{row['name']}, {row['dtype']}: loss of each step, ours and TRL's; the largest difference is {apart:.1e}")
    for losses in (ours, theirs):
        print("    " + " ".join(f"{loss:.5f}" for loss in losses))
    print(flush=True)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print(
        "| pairs | numbers | n | tokens: prompt, answer | side | s a step | ratio to ours | of it forward, backward, rest "
        "| with references ahead, one epoch | ratio to ours | peak GiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        for side, shown in SIDES.items():
            found, ours = row[side], row["ours"]
            whole, our_whole = (each["seconds"] + each["before"] for each in (found, ours))
            parts = [found["spent"]["forward"], found["spent"]["backward"]]
            spent = ", ".join(f"{part:.2f}" for part in [*parts, found["seconds"] - sum(parts)])
            tokens = ", ".join(f"{mean:.0f}" for mean in found["tokens"])
            print(
                f"| {row['name']} | {row['dtype']} | {found['pairs']} | {tokens} | {shown} | {found['seconds']:.2f} "
                f"| {found['seconds'] / ours['seconds']:.2f} | {spent} | {whole:.2f} | {whole / our_whole:.2f} "
                f"| {found['peak'] / 2**30:.2f} |"
            )
    print()


if __name__ == "__main__":
    sys.exit(main())
