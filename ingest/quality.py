"""How well a page's text was extracted: 1.0 for clean text in any script, less the more of it is visibly broken.

It looks for the marks that a broken character map, a lost space or a wrong encoding leaves, not for good style: clean
formulas, code, tables and scripts of any kind score well. It knows no dictionary, so that it cannot see a wrong letter
that makes a plausible word.
"""

import re
from collections.abc import Iterable

# Characters that no text holds: control characters, replacement and non-characters, private use, the dotted circle that
# stands in for a missing base letter.
_LOST = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u25cc\ue000-\uf8ff\ufdd0-\ufdef\ufff0-\uffff\ud800-\udfff\U000f0000-\U0010ffff]+"
)
_CID = re.compile(r"\(cid:\d+\)")
_MOJIBAKE = re.compile("[ÂÃ][\u0080-\u00bf]|â€.?|ï¬.|ï»¿")
_SPACED_LATIN = "A-Za-zÀ-ɏͰ-Ͽ\u0400-\u052f"  # scripts with spaces between words, and letters that stand apart
_SPREAD = re.compile(rf"(?<![^\W\d_])(?:[{_SPACED_LATIN}][ \n]){{5,}}[{_SPACED_LATIN}](?![^\W\d_])")
_ENDLESS = re.compile(r"[A-Za-zÀ-ɏͰ-Ͽ\u0400-\u052f\u0590-\u06ff\u0900-\u0dff]{32,}")
# Another alphabet in the middle of a Latin word, or two alphabets run together. One Greek letter at a word's edge is a
# unit or a symbol ("μm", "Δx").
_MIXED = re.compile("[a-z][Ͱ-ϿЀ-ӿ\u0590-\u06ff]+[a-z]+|[Ͱ-ϿЀ-ӿ]{2,}[a-z]{3,}|[A-Za-z]{3,}[Ͱ-ϿЀ-ӿ]{2,}|[а-яё][a-z][а-яё]")
# Symbols and capital letters that old TeX and Macintosh encodings put in the place of fi, fl and apostrophes.
_STRAY = re.compile("[a-z][®¯¤¦§¨©¶¸¿¢£¥]+[a-z]+|[a-z][ÞÐ]|[a-z][ÒÓÔÕ][a-z]+|(?<![^\\W\\d_])ß\\w+|[b-df-hj-np-tv-z]ß\\w*")
_SHARP_S = re.compile(r"\b[a-z]*[ßþð][a-z]*\b")
_ENGLISH = re.compile(r"\b(?:the|of|and|that)\b")
_INNER_CAPITAL = re.compile(r"[A-Z](?<=[a-z]{2}.)[a-z]{2,}")
_COMMA_GLUED = re.compile(r"[,;](?<=[a-z]{3}.)[A-Za-z][a-z]{2,}")
_OTHER_ALPHABET = re.compile("[Ͱ-ӿ\u0590-\u06ff]")
_STRAY_MARK = re.compile("[®¯¤¦§¨©¶¸¿¢£¥ÞÐÒÓÔÕß]")
_CODE_MARKS = re.compile(r"[{}()\[\]=_<>;]")
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_WITHOUT_VOWEL = re.compile(r"\b[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{4,}\b")

_LOST_WEIGHT = 2.0  # a lost character spoils its word
_WORD_WEIGHT = 2.0  # ... and a wrong letter is rarely the only one
_LONGEST_WORD = 31  # letters; longer ones are words whose spaces are lost
_MOST_NAMES = 3  # on a page, with a capital letter inside
_STEEPNESS = 10.0  # a tenth of the text broken halves the score


def score(text: str) -> float:
    """Return how well `text`, one page's, was extracted: from 0 (no text) over 0.5 (a tenth of it broken) to 1 (clean)."""
    length = len(text) - sum(map(text.count, " \n\r\t"))
    if not length:
        return 0.0
    broken = _LOST_WEIGHT * _total(_LOST.finditer(text)) + _total(_CID.finditer(text)) + _total(_SPREAD.finditer(text))
    if any(len(word) > _LONGEST_WORD for word in text.split()):
        broken += _total(_ENDLESS.finditer(text))
    if not text.isascii():
        broken += _LOST_WEIGHT * _total(_MOJIBAKE.finditer(text))
        if _OTHER_ALPHABET.search(text):
            broken += _WORD_WEIGHT * _total(_MIXED.finditer(text))
        if _STRAY_MARK.search(text):
            broken += _WORD_WEIGHT * _total(_STRAY.finditer(text))
        broken += _WORD_WEIGHT * _foreign_sharp_s(text)
    if len(_CODE_MARKS.findall(text)) < 0.02 * length:  # identifiers are written like that
        broken += _joined_words(text)
    broken += _without_vowels(text)
    return 1 / (1 + _STEEPNESS * broken / length)


def _total(matches: Iterable[re.Match[str]]) -> int:
    return sum(match.end() - match.start() for match in matches)


def _foreign_sharp_s(text: str) -> int:
    """Return how many characters stand in small words with ß, þ or ð on a page that is otherwise English.

    Names are spared: they begin with a capital letter.
    """
    matches = list(_SHARP_S.finditer(text)) if "ß" in text or "þ" in text or "ð" in text else []
    if not matches or len(_ENGLISH.findall(text)) < 0.04 * (text.count(" ") + 1):
        return 0
    return _total(matches)


def _joined_words(text: str) -> float:
    """Return the weight of the places where two words stand without a space between them: "deVilla", "Villa,which"."""
    # Names are written like that too ("OpenStax"), and come again and again: only different ones count.
    joints = {match[0] for match in _INNER_CAPITAL.finditer(text)} | {match[0] for match in _COMMA_GLUED.finditer(text)}
    return sum(map(len, joints)) if len(joints) > _MOST_NAMES else 0


def _without_vowels(text: str) -> int:
    """Return how many characters stand in longer words without a vowel where such words are common: a cipher, no text."""
    odd = _WITHOUT_VOWEL.findall(text)
    return sum(map(len, odd)) if len(odd) >= 4 and len(odd) > 0.2 * len(_LONG_WORD.findall(text)) else 0
