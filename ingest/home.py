"""Where the application keeps its data: courses, converted models and notes of what was verified."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest.errors import UserError


def home() -> Path:
    """Return the data folder: `$MCQA_HOME`, or the platform's folder for user data. It may not exist yet."""
    if folder := os.environ.get("MCQA_HOME"):
        return Path(folder).expanduser()
    import platformdirs

    return platformdirs.user_data_path("mcqa", appauthor=False)


def ensure_folder(folder: Path) -> Path:
    """Create `folder` with its parents and return it; raises UserError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "set MCQA_HOME to a folder you can write to"
        raise UserError(f"cannot create the data folder {folder} ({error.strerror}); {remedy}") from error
    return folder


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block ends well.

    Another process sees `target` whole or not at all. Where two processes build it at once, the first to finish wins.
    """
    ensure_folder(target.parent)
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        made.mkdir()
        yield made
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def write_atomically(target: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `target` through a temporary file, so that a reader never sees half of it."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)  # where a full disk or Ctrl-C came in between
