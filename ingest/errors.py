"""Errors that a user can act on. Each message is one line that names the thing and the remedy."""


class UserError(Exception):
    """A problem with what the user gave or asked for; the message says what is wrong and what to do about it."""


class CourseError(UserError):
    """A course that does not exist, is empty, is busy, or whose folder cannot be used."""


class IndexMismatchError(UserError):
    """An index that was built by another embedder, other passage settings or another version of its format."""


class UnreadableDocumentError(UserError):
    """A document that gives no text: damaged, encrypted, or without a text layer."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ModelError(UserError):
    """A model that is not there, cannot be loaded, or whose weights are not what they should be."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest of `known`, or an empty string where none is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean '{close[0]}'?" if close else ""


def brief(error: BaseException, limit: int | None = 120) -> str:
    """Return the first line of the error's message, at most `limit` characters, or the name of its kind."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
