"""A course's own pages → multiple-choice questions: what its glossary defines, and the terms of its key sentences.

Nothing is written by a model, so every question quotes the page that answers it. Wrong options are other terms, definitions or
years from pages nearby, of the same form as the right one.
"""

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nsmallest
from itertools import groupby, islice, zip_longest
from typing import Literal

from assistant.mcq import LETTERS, MCQ
from ingest.document import Page
from ingest.words import STOP_WORDS, terms

Kind = Literal["term", "definition", "gap"]
KINDS: tuple[Kind, ...] = ("term", "definition", "gap")

_WORD = re.compile(r"[^\W_]+(?:[-’'][^\W_]+)*")
_TERM = r"[^\W\d_][\w’'-]*(?: [\w’'()-]+){0,8}"
_ENTRY = re.compile(rf"(?:^|(?<=\s))({_TERM})(?:: | [–—] )(?=\S)", re.MULTILINE)
_IS = re.compile(
    r"(?:An?|The)? ?(\S+(?: \S+){0,3}?) (?:is|are) ((?:an?|any|the (?:process|study|act|ability|state|set|part)) .+)"
)
_REFERS = re.compile(r"(?:An?|The)? ?(\S+(?: \S+){0,3}?) (?:refers? to|is defined as|means) (.+)")
_SENTENCE_END = re.compile(r"(?<=[\w)\]][.!?])\s+(?=[A-Z“\"(])|(?<=[.!?][”\"’)])\s+(?=[A-Z“\"(])")
_ABBREVIATED = re.compile(r"(?:\b[A-Z]|\b(?:Dr|Mr|Mrs|Ms|St|Jr|Sr|vs?|etc|cf|al|No|Fig|Eq|Sec|Ch|e\.g|i\.e|U\.S))\.$")
_NOT_ALONE = re.compile(
    r"(?:this|these|those|that|it|its|he|she|they|his|her|their|we|you|i|such|however|therefore|thus|but|and|or|so|also|then|"
    r"here|there|as|instead|both|another|others?|for example|for instance|in addition|in contrast|similarly|likewise)\b",
    re.IGNORECASE,
)
_POINTS_ELSEWHERE = re.compile(
    r"\b(?:figures?|tables?|chapters?|sections?|above|below|next page|previous|learning objectives|https?|www|credit)\b"
    r"|[•|=\[\]{}@]|(?-i:[a-z0-9]{2}\.[A-Z“])",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<![\w.,$-])(1[1-9]\d\d|20\d\d)(?![\w%-]|,\d)")
# Not at the start of a sentence.
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z’'-]+(?: (?:(?:of|the|de|von) ){0,2}[A-Z][\w’'-]+)*(?![\w’'-])")
_NO_TERM_TEXT = """
    note notes example examples figure table source sources summary credit hint tip key answer question step part chapter
    section introduction conclusion however following reasons ways things
"""
_NO_TERM = frozenset(_NO_TERM_TEXT.split())
_BEFORE_NOUNS_TEXT = "a an the of in by for with from into to on this these that its their each every no any"
_BEFORE_NOUNS = frozenset(_BEFORE_NOUNS_TEXT.split())
_FEWEST_ENTRIES = 3  # so many colons on a page make a glossary; one alone is a sentence
_LOWER = 0.4  # of a sentence's words are written small
_REPEATED = 3  # times that a document uses what it is about
_COMMON = 0.1  # the share of pages above which a term says little
_NEARBY = 25  # pages among which wrong options are sought first
_NEAREST = 60  # terms that are looked at as wrong options
_CHOICE = 3  # wrong options are drawn from so many times as many as are needed, the best ones


@dataclass(frozen=True, slots=True)
class QuizItem:
    """A question made from a course's page: `evidence` is the text on it that answers."""

    mcq: MCQ
    kind: Kind
    document: str
    page: int
    evidence: str

    def to_json(self) -> dict[str, object]:
        """Return the row of a question file that keeps all of it."""
        return {
            "id": self.mcq.id,
            "subject": self.mcq.subject,
            "question": self.mcq.question,
            "choices": list(self.mcq.options),
            "answer": self.mcq.answer,
            "kind": self.kind,
            "document": self.document,
            "page": self.page,
            "evidence": self.evidence,
        }


def make_quiz(
    documents: Mapping[str, Sequence[Page]],
    *,
    kinds: Iterable[Kind] = KINDS,
    limit: int | None = None,
    options: int = 4,
    seed: int = 0,
) -> list[QuizItem]:
    """Make questions from the pages of `documents`, in the order of their pages; the same pages and seed give the same ones.

    `term`: a definition is given, its term is asked for. `definition`: the other way around. `gap`: a sentence without its key
    term, or year. At most `limit` in all, spread evenly over the pages; each has `options` options, of which the right one may
    stand anywhere. Documents that define nothing and repeat no term give no questions.
    """
    wanted = set(kinds)
    found: list[QuizItem] = []
    for name in sorted(documents):
        found += _of_document(name, documents[name], wanted, options, random.Random(f"{seed} {name}"))
    return found if limit is None else _spread(found, limit)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A term, what it means, and the page that says so."""

    term: str
    meaning: str
    page: int
    evidence: str


class _Terms:
    """Which phrases a document uses as nouns, and on which pages."""

    def __init__(self, pages: Mapping[str, Iterable[int]]) -> None:
        self.pages = {phrase: sorted(set(numbers)) for phrase, numbers in pages.items()}
        self._on: dict[int, list[str]] = defaultdict(list)
        for phrase, numbers in self.pages.items():
            for number in numbers:
                self._on[number].append(phrase)
        self._near: dict[int, list[str]] = {}

    def nearby(self, page: int) -> list[str]:
        """Return the phrases that stand within some pages, those on the nearest first."""
        if page not in self._near:
            around = sorted(range(page - _NEARBY, page + _NEARBY + 1), key=lambda number: abs(number - page))
            self._near[page] = list(dict.fromkeys(phrase for number in around for phrase in self._on.get(number, ())))
        return self._near[page]


def _of_document(name: str, pages: Sequence[Page], kinds: set[Kind], options: int, draw: random.Random) -> list[QuizItem]:
    sentences = [(page.number, sentence) for page in pages for sentence in _sentences(page.text)]
    counts = _phrase_counts(pages)
    entries = list(_unique([*_glossary(pages, counts), *_definitions(sentences, counts)]))
    made: list[tuple[Kind, str, str, list[str], int, str]] = []  # kind, question, right option, wrong ones, page, evidence
    for entry in entries:
        near = sorted(entries, key=lambda other: abs(other.page - entry.page))[: 2 * _NEARBY]
        others = [other for other in near if not _alike(other.term, entry.term) and not _says(entry.meaning, other.term)]
        wrong = _drawn([other.term for other in others], entry.term, options - 1, draw)
        if "term" in kinds and wrong and not _says(entry.meaning, entry.term):
            made.append(
                ("term", f"Which term is defined here: {entry.meaning}?", entry.term, wrong, entry.page, entry.evidence)
            )
        meanings = _drawn(
            [other.meaning for other in others if not _says(other.meaning, entry.term)], entry.meaning, options - 1, draw
        )
        if "definition" in kinds and meanings:
            question = f"What is meant by “{entry.term}”?"
            made.append(("definition", question, entry.meaning, meanings, entry.page, entry.evidence))
    if "gap" in kinds:
        known = _known_terms(pages, counts, entries)
        years = {page.number: _YEAR.findall(page.text) for page in pages}
        for page, sentence in sentences:
            gap = _gap(page, sentence, known, years, options - 1, draw)
            if gap is not None:
                made.append(("gap", *gap, page, sentence))
    made.sort(key=lambda one: one[4])
    return [_item(name, number, one, draw) for number, one in enumerate(made, start=1)]


def _item(document: str, number: int, made: tuple[Kind, str, str, list[str], int, str], draw: random.Random) -> QuizItem:
    kind, question, right, wrong, page, evidence = made
    choices = [right, *wrong]
    draw.shuffle(choices)
    mcq = MCQ(
        question, tuple(choices), LETTERS[choices.index(right)], id=f"{document}-{number}", subject=document.rsplit(".", 1)[0]
    )
    return QuizItem(mcq, kind, document, page, evidence)


def _spread(items: Sequence[QuizItem], limit: int) -> list[QuizItem]:
    """Return at most `limit` of the items, one from each page before any page gives a second, and no kind preferred."""
    turn: list[tuple[int, bytes, int]] = []
    for _, group in groupby(enumerate(items), key=lambda pair: (pair[1].document, pair[1].page)):
        of_page = sorted((_hash(item.mcq.question), index) for index, item in group)
        turn += [(rank, digest, index) for rank, (digest, index) in enumerate(of_page)]
    return [items[index] for index in sorted(index for _, _, index in sorted(turn)[:limit])]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _sentences(text: str) -> Iterator[str]:
    """Yield the whole sentences of a page that can stand alone."""
    for line in text.split("\n"):
        parts: list[str] = []
        for part in _SENTENCE_END.split(line):
            if parts and _ABBREVIATED.search(parts[-1]):
                parts[-1] += f" {part}"
            else:
                parts.append(part)
        for sentence in parts:
            clean = sentence.strip()
            if 6 <= len(clean.split()) <= 45 and clean[0].isupper() and clean.endswith(".") and not _points(clean):
                yield clean


def _points(sentence: str) -> bool:
    """Whether a sentence leans on others, on figures, or is none."""
    words = sentence.split()
    # An entry of a bibliography: names, places, titles and numbers.
    listed = sum(word.islower() for word in words) < _LOWER * len(words)
    odd = sentence.count("“") != sentence.count("”") or sentence.count("(") != sentence.count(")")
    return listed or odd or bool(_NOT_ALONE.match(sentence) or _POINTS_ELSEWHERE.search(sentence))


def _phrase_counts(pages: Sequence[Page]) -> Counter[str]:
    """Return how often each sequence of up to five words stands in a document, as `_plain` has them."""
    counts: Counter[str] = Counter()
    for page in pages:
        words = _plain(page.text).split()
        for length in range(1, 6):
            counts.update(" ".join(words[at : at + length]) for at in range(len(words) - length + 1))
    return counts


def _glossary(pages: Sequence[Page], counts: Counter[str]) -> Iterator[_Entry]:
    """Yield the "term: meaning" entries of pages with several, however their lines were joined."""
    for page in pages:
        found: list[_Entry] = []
        for line in page.text.split("\n"):
            marks = [(match, term) for match in _ENTRY.finditer(line) if (term := _own_term(match[1], counts))]
            for (match, term), following in zip_longest(marks, marks[1:]):
                end = len(line) if following is None else following[0].end(1) - len(following[1])
                meaning = line[match.end() : end].strip().rstrip(".;")
                words = meaning.split()
                whole = 4 <= len(words) <= 60 and words[-1] not in STOP_WORDS and not _SENTENCE_END.search(meaning)
                if whole and not _POINTS_ELSEWHERE.search(meaning):
                    found.append(_Entry(term, meaning, page.number, f"{term}: {meaning}"))
        if len(found) >= _FEWEST_ENTRIES:
            yield from found


def _own_term(words: str, counts: Counter[str]) -> str:
    """Return the end of `words` that the document uses elsewhere as well, at its longest; "" where there is none.

    Where a page's lines were joined, what stands before a colon begins with the end of the entry before.
    """
    parts = words.split(" ")
    for start in range(len(parts)):
        term = " ".join(parts[start:])
        plain = [word.lower() for word in _WORD.findall(re.sub(r" ?\([^)]*\)$", "", term))]
        if not plain or plain[0] in STOP_WORDS or plain[-1] in STOP_WORDS or _NO_TERM.intersection(plain):
            continue
        if term.count("(") == term.count(")") and counts[_plain(" ".join(plain))] >= 2:
            return term
    return ""


def _definitions(sentences: Iterable[tuple[int, str]], counts: Counter[str]) -> Iterator[_Entry]:
    """Yield what sentences like "Deadlock is a state in which ..." define."""
    for page, sentence in sentences:
        match = _REFERS.fullmatch(sentence) or _IS.fullmatch(sentence)
        if match is None:
            continue
        term, meaning = match[1], match[2].rstrip(".")
        words = [word.lower() for word in _WORD.findall(term)]
        is_term = words and not STOP_WORDS.intersection(words) and not _NO_TERM.intersection(words)
        if is_term and "," not in term and counts[_plain(term)] >= _REPEATED and 5 <= len(meaning.split()) <= 40:
            yield _Entry(term if term[1:2].isupper() else term[0].lower() + term[1:], meaning, page, sentence)


def _unique(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """Yield the first entry of each term."""
    seen: set[str] = set()
    for entry in entries:
        key = " ".join(terms(entry.term))
        if key not in seen:
            seen.add(key)
            yield entry


def _known_terms(pages: Sequence[Page], counts: Counter[str], entries: Sequence[_Entry]) -> tuple[_Terms, _Terms]:
    """Return the document's terms (what it defines, and pairs of words that mostly stand where nouns do), and its names."""
    nouns: Counter[str] = Counter()  # how often a phrase stands between a word that nouns follow and one that ends them
    defined = {entry.term for entry in entries}
    terms_on: dict[str, list[int]] = defaultdict(list)
    names_on: dict[str, list[int]] = defaultdict(list)
    for page in pages:
        for match in _NAME.finditer(page.text):
            names_on[match[0]].append(page.number)
        words = [(match[0], match.start(), match.end()) for match in _WORD.finditer(page.text)]
        for at, (_, start, _) in enumerate(words):
            for length in (1, 2, 3):
                part = words[at : at + length]
                phrase = page.text[start : part[-1][2]]
                if (
                    len(part) < length
                    or phrase.count(" ") != length - 1
                    or part[-1][0].lower() in STOP_WORDS
                    or phrase != phrase.lower()
                ):
                    break
                if phrase in defined or (length > 1 and part[0][0] not in STOP_WORDS):
                    terms_on[phrase].append(page.number)
                    before = words[at - 1][0].lower() if at else ""
                    after = words[at + length][0].lower() if at + length < len(words) else ""
                    ended = page.text[part[-1][2] : part[-1][2] + 1] in ".,;:)" or after in STOP_WORDS
                    nouns[phrase] += before in _BEFORE_NOUNS and ended
    most = max(8, _COMMON * len(pages))  # what stands on more pages says little

    def some(found: dict[str, list[int]], keep: Callable[[str, int], bool]) -> _Terms:
        return _Terms({
            phrase: on for phrase, on in found.items() if phrase in defined or (keep(phrase, len(on)) and len(set(on)) <= most)
        })  # fmt: skip

    return (
        some(terms_on, lambda phrase, times: times >= _REPEATED and 2 * nouns[phrase] >= times),
        some(names_on, lambda phrase, times: times >= _REPEATED and 2 * times >= counts[_plain(phrase)]),
    )


def _gap(
    page: int, sentence: str, known: Sequence[_Terms], years: Mapping[int, list[str]], wrong: int, draw: random.Random
) -> tuple[str, str, list[str]] | None:
    """Return (question, right option, wrong ones) of a sentence without its key term or year; None where it has none."""
    found: list[tuple[int, str, list[str]]] = []
    for terms_ in known:
        for phrase in _phrases(sentence):
            on = terms_.pages.get(phrase)
            if on:  # the rarest in the document says most; of those alike, the longest
                others = (other for other in terms_.nearby(page) if not _says(sentence, other))
                found.append((len(on) - 3 * phrase.count(" "), phrase, list(islice(others, _NEAREST))))
    for term, near in [(term, near) for _, term, near in sorted(found, key=lambda one: one[:2])]:
        options = _drawn(near, term, wrong, draw)
        if options and len(_whole(term).findall(sentence)) == 1:
            return f"Which words complete the sentence? {_whole(term).sub('_____', sentence)}", term, options
    inside = _YEAR.findall(sentence)
    if len(inside) == 1:
        near_years = [
            year for number in range(page - _NEARBY, page + _NEARBY + 1) for year in years.get(number, ()) if year != inside[0]
        ]
        pool = sorted(set(near_years), key=lambda year: abs(int(year) - int(inside[0])))[: _CHOICE * wrong]
        if len(pool) >= wrong:
            return (
                f"Which year completes the sentence? {sentence.replace(inside[0], '_____')}",
                inside[0],
                draw.sample(pool, wrong),
            )
    return None


def _phrases(sentence: str) -> Iterator[str]:
    """Yield names and runs of up to three words, those that begin the sentence aside."""
    yield from (match[0] for match in _NAME.finditer(sentence) if match.start())
    words = list(_WORD.finditer(sentence))
    for at in range(1, len(words)):
        for length in (3, 2, 1):
            if at + length <= len(words):
                yield sentence[words[at].start() : words[at + length - 1].end()]


def _whole(term: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(term)}(?!\w)")


def _plain(phrase: str) -> str:
    """Return a phrase as it is counted: lower case, plurals like singulars."""
    return " ".join(word.lower().rstrip("s") for word in _WORD.findall(phrase))


@lru_cache(maxsize=100_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(terms(text))


def _alike(one: str, other: str) -> bool:
    """Whether two terms name the same thing, or one is part of the other."""
    a, b = _words(one), _words(other)
    return a <= b or b <= a


def _says(text: str, term: str) -> bool:
    """Whether a text holds all words of a term."""
    return _words(term) <= _words(text)


def _drawn(candidates: Sequence[str], right: str, count: int, draw: random.Random) -> list[str]:
    """Return `count` wrong options of the right one's form, from the best candidates, none naming another; [] if too few."""
    others = [other for other in dict.fromkeys(candidates) if not _alike(other, right)]
    pool = nsmallest(_CHOICE * count, others, key=lambda other: _unlike(other, right))  # the nearest first where alike
    draw.shuffle(pool)
    chosen: list[str] = []
    for other in pool:
        if len(chosen) < count and not any(_alike(other, one) for one in chosen):
            chosen.append(other)
    return chosen if len(chosen) == count else []


def _unlike(one: str, other: str) -> float:
    """Return how far apart the forms of two options are: case, number, last letters, length."""
    words = abs(len(one.split()) - len(other.split())) / max(1, len(other.split()))
    return (
        2.0 * (one[0].isupper() != other[0].isupper())
        + 1.0 * (one.endswith("s") != other.endswith("s"))
        + 0.5 * (one[-3:] != other[-3:])
        + 1.0 * (any(map(str.isdigit, one)) != any(map(str.isdigit, other)))
        + 2.0 * words
    )
