"""A multiple-choice question in; a letter, a probability for each option and the passages they rest on out."""

import ingest  # noqa: F401 -- switches the libraries' telemetry off before any of them is imported
