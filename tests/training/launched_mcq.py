"""MCQ tuning in one of several processes, as a launcher starts it; the test that does so says what it must come to."""

import json
import sys
from pathlib import Path

from assistant.mcq import MCQ
from assistant.model import load_model
from training.examples import examples
from training.gather import Asked
from training.loop import Job
from training.mcq import run_mcq
from training.progress import watching
from training.recipe import MCQTuning

if __name__ == "__main__":
    call = json.loads(sys.argv[1])
    stage = MCQTuning.model_validate(call["stage"])
    asked = [
        Asked(place, MCQ(question, tuple(options), key), fact=fact) for place, question, options, key, fact in call["asked"]
    ]
    job = Job(Path(call["folder"]), call["model"], "llama")
    found = examples(load_model(call["model"], dtype="fp32"), stage, asked)
    with watching(job) as callbacks:
        run_mcq(stage, job, found[: -call["held"]], found[-call["held"] :], callbacks)
