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

# Threads of one matrix product wait for each other. Spinning while they wait, they take the processor from whoever works
# beside them, the processes that read files or another asker, and a query can take half a second instead of 20 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
