"""Course material in, passages out: read PDFs, split them, keep them in an index that follows the folder."""

import os

# Nothing phones home. The libraries read these when they are imported, so they are set before any of them is.
for _switch, _value in {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_switch, _value)

# Threads of one matrix product wait for each other. Spinning for long, they take the processor from whoever works beside them,
# and a search can take half a second instead of 30 ms; going to sleep at once, they wake up late, and an answer takes a third
# longer. So they spin for a fraction of a millisecond (in turns, as GNU's OpenMP counts).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
