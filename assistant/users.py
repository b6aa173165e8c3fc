"""Who may use the page: a file of names with hashed passwords and roles."""

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ingest.errors import UserError
from ingest.home import ensure_folder, write_atomically

Role = Literal["student", "staff"]
_NAME = re.compile(r"[\w.@+-]{1,64}")
_SHORTEST = 8  # characters of a password
# scrypt as RFC 7914 suggests for logins: 16 MB and some 50 ms a guess.
_N, _R, _P = 2**14, 8, 1
_TRIES, _PAUSE = 5, 5.0  # wrong passwords for a name in a row, and the seconds between two guesses from then on


class User(BaseModel):
    """A user: the role, and the password's hash (scrypt) with its salt, both in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    salt: str
    scrypt: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    users: dict[str, User]


class Users:
    """The users in a file, which is read again when it changes: who is added can sign in at once."""

    def __init__(self, path: Path) -> None:
        """Raise UserError where the file is none, or holds nobody."""
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, dict[str, User]] | None = None
        self._wrong: dict[str, tuple[int, float]] = {}  # by name, of those there are: how many in a row, and when the last was
        if not self._all():
            raise UserError(f"{path} holds no user; add one: mcqa users add NAME --file {path} --staff")

    def check(self, name: str, password: str) -> bool:
        """Return whether this is the user's password. A name that is not there takes as long to refuse.

        After five wrong passwords for a name, one guess in five seconds is looked at; the others are refused unseen.
        """
        user = self._all().get(name)
        with self._lock:
            tries, last = self._wrong.get(name, (0, 0.0))
            too_many = tries >= _TRIES and time.monotonic() < last + _PAUSE
            if user and not too_many:  # counted before it is known, so that guesses at the same time count, too
                self._wrong[name] = (tries + 1, time.monotonic())
        salt = b64decode(user.salt) if user else b"nobody"
        expected = b64decode(user.scrypt) if user else b""
        # Hashed even where it cannot count, so that the time an answer takes tells nothing of which names exist.
        right = hmac.compare_digest(_hash(password, salt), expected) and not too_many
        if right:
            with self._lock:
                self._wrong.pop(name, None)
        return right

    def is_staff(self, name: str | None) -> bool:
        """Return whether `name` is a user and staff."""
        user = self._all().get(name) if name else None
        return user is not None and user.role == "staff"

    def _all(self) -> dict[str, User]:
        with self._lock:
            try:
                changed = self._path.stat().st_mtime_ns
            except OSError as error:
                raise UserError(
                    f"{self._path} cannot be read ({error.strerror}); add a user: mcqa users add NAME --file {self._path}"
                ) from error
            if self._seen is None or self._seen[0] != changed:
                self._seen = changed, read_users(self._path)
            return self._seen[1]


def read_users(path: Path) -> dict[str, User]:
    """Return the users in a file, by name; raises UserError where it is no such file."""
    try:
        return dict(_File.model_validate_json(path.read_bytes()).users)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise UserError(f"{path} is no file of users; give the one that `mcqa users add` wrote") from error


def add_user(path: Path, name: str, password: str, role: Role = "student") -> None:
    """Add a user to the file at `path`, or give one a new password and role; only its owner can read the file.

    Raises UserError on a name or password that will not do.
    """
    from filelock import FileLock

    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be a user's name; use letters, digits and . @ + - _, at most 64")
    if len(password) < _SHORTEST:
        raise UserError(f"the password is too short; use {_SHORTEST} characters or more")
    ensure_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        users = read_users(path) if path.exists() else {}
        salt = secrets.token_bytes(16)
        digest = b64encode(_hash(password, salt)).decode()
        users[name] = User(role=role, salt=b64encode(salt).decode(), scrypt=digest)
        content = json.dumps({"users": {key: user.model_dump() for key, user in sorted(users.items())}}, indent=2) + "\n"
        before = os.umask(0o077)
        try:
            write_atomically(path, content)
        finally:
            os.umask(before)


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P)
