"""Questions that ask for what is not so ("Which is NOT ...", "All of these EXCEPT ..."), and the same put plainly.

A small model hardly reads a "not": it finds the options that the text speaks for, which are the wrong ones here. So such a
question can be asked in plain form and the scores turned round: its answer is the option that fits the plain question least.
Only a negation of what is asked counts; one in what a question tells ("When it is not sealed, which ...") leaves it as it is.
"""

import re
from itertools import pairwise

_BE = r"(?:is|are|was|were)"
_HELP = r"(?:do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must)"
# Words up to the verb of what is asked. With these a clause of its own begins, whose "not" is another matter.
_CLAUSE = r"(?:because|since|if|when|where|why|how|that|who|although|though|while|whether|unless|but)"
_WORDS = rf"(?:(?!\b(?:{_CLAUSE}|{_BE}|{_HELP}|be|been)\b)[^,;:.?!])*"
# "who" and "which" ask where they begin a clause; elsewhere they tell of somebody or something.
_FIRST = r"(?:^|(?<=[,;:]\s))"
_ASKING = (
    rf"(?:(?:{_FIRST}|\b(?:in|of|to|for|from|by|on|with|at|under)\s+)which"
    rf"|{_FIRST}(?:who|what)|\bwhich\s+(?:one|of)|\bwhat\s+of)"
)

# "isnot" is what a page or a file makes of an "is" before a "not" in bold or italics.
_CONTRACTION = re.compile(rf"\b(?:({_BE}|{_HELP})(?:n['’]t|not)|(can)['’]t)\b", re.IGNORECASE)
_NOT = re.compile(
    rf"({_ASKING}\b{_WORDS}\b(?:{_BE}(?:\s+\w+ly)?|{_HELP}\b{_WORDS}))\s+not\b(?!\s+only\b)", re.IGNORECASE
)  # fmt: skip
_NOT_FIRST = re.compile(r"^not\s+(?!only\b)(?=\w)", re.IGNORECASE)
_EXCEPT = re.compile(r"\W*\bexcept(?:ing)?(?:\s+for)?\b(?:\s*(?:which|what|one|any)\b[^.?!]*)?(?=[\W_]*$)", re.IGNORECASE)
_FALSE = re.compile(
    rf"(?:^|\b(?P<before>which\b[^.?!]*?\b{_BE}\s+(?:not\s+)?(?:considered\s+|the\s+|a\s+)?))(?P<article>an\s+)?"
    r"\b(?P<word>false|untrue|incorrect|wrong)\b",
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"(?=.*\b(?:which|who|what|whose)\b)(?P<before>^|.*?\b(?<!at )(?<!from )(?<!from the ))(?P<article>)"
    r"\b(?P<word>least)\b(?!.*\bmost\b)",
    re.IGNORECASE | re.DOTALL,
)
_OPPOSITES = {"false": "true", "untrue": "true", "incorrect": "correct", "wrong": "right", "least": "most"}
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
_LONGEST = 600  # characters of a sentence that is looked at: none that asks is longer, and the patterns take time squared


def plain(question: str) -> str | None:
    """Return a question that asks for what is not so without its negation; None for any other question.

    Sentences that deny twice, as "Which is not false?", are left alone.
    """
    ends = [0, *(end.end() for end in _SENTENCE_END.finditer(question)), len(question)]
    for start, end in reversed(list(pairwise(ends))):
        if end - start > _LONGEST:
            continue
        sentence = _CONTRACTION.sub(r"\1\2 not", question[start:end])
        ways = (
            _NOT.subn(r"\1", sentence, 1),
            _NOT_FIRST.subn("", sentence, 1),
            _EXCEPT.subn("", sentence, 1),
            _FALSE.subn(_opposite, sentence, 1),
            _LEAST.subn(_opposite, sentence, 1),
        )
        found = [text for text, count in ways if count]
        if found:
            return question[:start] + found[0] + question[end:] if len(found) == 1 else None
    return None


def _opposite(match: re.Match[str]) -> str:
    return f"{match['before'] or ''}{'a ' if match['article'] else ''}{_OPPOSITES[match['word'].lower()]}"
