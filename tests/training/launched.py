"""Preference tuning in one of several processes, as a launcher starts it; the test that does so says what it must come to."""

import json
import sys
from pathlib import Path

from training.dpo import run_dpo
from training.loop import Job
from training.pairs import Message, Pair
from training.recipe import DPO

if __name__ == "__main__":
    call = json.loads(sys.argv[1])
    pairs = [Pair((Message("user", asked),), good, bad, "made", line) for line, (asked, good, bad) in enumerate(call["rows"])]
    job = Job(Path(call["folder"]), call["model"], "llama")
    run_dpo(DPO.model_validate(call["stage"]), job, pairs[: -call["held"]], pairs[-call["held"] :])
