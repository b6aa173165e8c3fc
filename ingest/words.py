"""A query's text → the words that a lexical search should look for."""

import re

# English function words and the words that every exam question uses: they stand everywhere and tell nothing.
_STOP_TEXT = """
    a about above after again all also am an and any are as at be because been before being below between both but by can
    cannot could did do does doing down during each either else few for from further had has have having he her here hers
    him his how however i if in into is it its itself just may me might more most must my neither no nor not of off on
    once only or other our ours out over own per same shall she should so some such than that the their theirs them then
    there these they this those through thus to too under until up upon us very was we were what when where whether which
    while who whom whose why will with would you your yours
    following statement statements option options answer correct incorrect true false best describes question
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def search_terms(text: str) -> list[str]:
    """Return the distinct words of `text` that are worth searching for, lower-cased, in order of appearance.

    Where nothing but stop words is left, they are returned: a question of common words is still a question.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", text.lower())))
    return [word for word in words if word not in _STOP_WORDS] or words
