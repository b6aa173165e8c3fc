"""A run in several processes, by `accelerate launch` and a configuration that has a name."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ingest.errors import UserError, did_you_mean

CPU = "cpu"  # processes on this machine's processor, which speak by gloo: to try a launch without GPUs


def configurations() -> dict[str, Path]:
    """Return the packaged configurations of accelerate by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "launch").glob("*.yaml"))}


def launch(name: str, processes: int, arguments: Sequence[str]) -> int:
    """Run `mcqa-train` with `arguments` in so many processes; returns the exit status.

    `name` is a packaged configuration or the file of another (`accelerate config` writes one). Raises UserError where there
    is none of that name, or what it needs is not here.
    """
    if processes < 2:
        raise UserError(f"--launch {name} takes at least 2 processes; use --processes, or leave --launch out")
    if name == CPU:  # accelerate starts one process here, unless there is MPI
        return _run(["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)], arguments)
    known = configurations()
    path = known.get(name, Path(name))
    if not path.is_file():
        hint = (
            did_you_mean(name, [CPU, *known])
            or f"; use one of {', '.join([CPU, *known])}, or a file that `accelerate config` wrote"
        )
        raise UserError(f"--launch {name}: there is no such configuration{hint}")
    if "DEEPSPEED" in path.read_text(encoding="utf-8") and find_spec("deepspeed") is None:
        raise UserError(f"--launch {name} needs the package deepspeed; run: pip install deepspeed")
    return _run(["accelerate.commands.launch", "--config_file", str(path), "--num_processes", str(processes)], arguments)


def _run(launcher: Sequence[str], arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", *launcher, "-m", "training.cli", *arguments]
    return subprocess.run(command, check=False).returncode  # noqa: S603 -- no shell, and what the user gave are its arguments
