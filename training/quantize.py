"""A model, or an adapter on its base → the merged model in 8 or 4 bits, and what that saved and cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assistant.merge import merge
from ingest.errors import UserError

__all__ = ["Comparison", "Measured", "compare", "folder_bytes", "merge", "quantize"]
