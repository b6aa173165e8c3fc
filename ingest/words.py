"""Text → the words that a lexical search indexes and looks for."""

import re
import unicodedata
from functools import lru_cache

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
STOP_WORDS = frozenset(_STOP_TEXT.split())
# Scripts written without spaces: a run of them is no word. Pairs of characters serve as words, as is usual for CJK search.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])\s+|\n+")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]")


def terms(text: str) -> list[str]:
    """Return the words of `text` as the lexical index knows them, in order: lower case, no accents, no stop words, lemmas.

    Text and query go through this same function, so that what one holds the other finds. Where nothing but stop words is
    there, they are returned: a question of common words is still a question.
    """
    words = [part for word in _WORD.findall(text.lower()) for part in _parts(word)]
    return [_lemma(word) for word in words if word not in STOP_WORDS] or [_lemma(word) for word in words]


def sentences(text: str) -> list[str]:
    """Return the sentences of `text`, in order; a line's end ends one, too."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def search_terms(text: str) -> list[str]:
    """Return the distinct `terms` of a query, in order of appearance."""
    return list(dict.fromkeys(terms(text)))


def _parts(word: str) -> list[str]:
    if len(word) > 2 and _UNSPACED_RUN.match(word):
        return [word[i : i + 2] for i in range(len(word) - 1)]
    return [word]


@lru_cache(maxsize=200_000)
def _lemma(word: str) -> str:
    """Return the base form of an English word ("wolves" → "wolf") without accents; other words stay as they are."""
    import simplemma

    # Lemmas first, then the accents: the dictionary knows the words as they are written.
    plain = unicodedata.normalize("NFKD", simplemma.lemmatize(word, lang="en").lower())
    return "".join(character for character in plain if not unicodedata.combining(character)) or word
