"""Preference data in its published layouts → pairs."""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ingest.errors import UserError
from training.pairs import Layout, Message, Pair, PairRow
from training.records import read_records


class RowError(UserError):
    """A row that holds no pair; the message says what is missing."""


def read_preferences(path: Path, seed: int = 0) -> Iterator[PairRow]:
    """Yield the pairs of `path` in order, one at a time. Every row's layout is told by its keys.

    - prompt-chosen-rejected: texts, or lists of `{"role", "content"}`; where these begin alike, that is (part of) the prompt
    - course-labels: `{"question_complete", "preference": [{"A", "B", "overall", "criteria": {...}}]}`, a pair a preference;
      the criteria may also stand beside A and B
    - hh-rlhf: `{"chosen", "rejected"}`, dialogues of "\\n\\nHuman:" and "\\n\\nAssistant:" turns that begin alike
    - orca-dpo-pairs: `{"system", "question", "chosen", "rejected"}`
    - ultrafeedback: `{"instruction", "completions": [{"response", "overall_score"}]}`: the first of the best against one
      with a lower score, drawn with `seed` (arXiv 2310.16944, section 4)
    - sharegpt: `{"conversations": [{"from", "value"}], "chosen": {"from", "value"}, "rejected"}`, also with `system`

    `.jsonl` holds an object a line, `.json` the same or a list of objects; both may be gzipped (`.gz`). A row without a pair
    is yielded with its error. Raises UserError where the file as a whole cannot be read.
    """
    for record in read_records(path):
        if record.error:
            yield PairRow(record.line, None, record.error)
        else:
            yield from read_row(record.value, path.name, record.line, seed)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a layout's reader makes of a row: a pair that does not know yet where it stood."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    criteria: tuple[tuple[str, str], ...] | None = None
    tied: bool = False


def read_row(record: Any, source: str, line: int, seed: int = 0) -> Iterator[PairRow]:
    """Yield the pairs of one row as JSON gave it, which stood in the file `source`; one without is yielded with its error."""
    layout = None
    try:
        layout = _recognize(record)
        found = _READERS[layout](record, seed)
        for item in found:
            if isinstance(item, RowError):
                yield PairRow(line, None, str(item), layout)
            else:
                check_prompt(item.prompt)
                pair = Pair(item.prompt, item.chosen, item.rejected, source, line, item.criteria, item.tied)
                yield PairRow(line, pair, layout=layout)
    except RowError as error:
        yield PairRow(line, None, str(error), layout)


def _recognize(record: Any) -> Layout:
    """Return the layout that the keys of a row belong to."""
    if not isinstance(record, dict):
        raise RowError(f"expected an object with 'chosen' and 'rejected', found {type(record).__name__}")
    if "preference" in record or "question_complete" in record:
        return Layout.course
    if "conversations" in record:
        return Layout.sharegpt
    if "completions" in record:
        return Layout.scored
    if "chosen" not in record or "rejected" not in record:
        missing = " and no ".join(f"'{name}'" for name in ("chosen", "rejected") if name not in record)
        raise RowError(f"no {missing}" + (f"; the keys are {', '.join(map(str, record))}" if record else ""))
    if record.get("prompt") is None and record.get("question") is not None:
        return Layout.orca
    if record.get("prompt") is None and isinstance(record["chosen"], str):
        return Layout.dialogue
    return Layout.pair


def _pair(record: Mapping[str, Any], _seed: int) -> list[_Found]:
    given = record.get("prompt")
    prompt: tuple[Message, ...] = ()
    if isinstance(given, str):
        prompt = _turns(given.removesuffix(_ANSWER)) if _is_dialogue(given) else (Message("user", read_text(record, "prompt")),)
    elif given is not None:
        prompt = read_messages(given, "prompt")
    if isinstance(record["chosen"], str) and isinstance(record["rejected"], str):
        return [_Found(read_system(record) + prompt, read_text(record, "chosen"), read_text(record, "rejected"))]
    chosen, rejected = (read_messages(record[name], name) for name in ("chosen", "rejected"))
    # The last message is the answer, even where both are the same.
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    shared = tuple(one for one, _ in takewhile(lambda both: both[0] == both[1], pairs))
    if len(chosen) != len(shared) + 1 or len(rejected) != len(shared) + 1:
        raise RowError("'chosen' and 'rejected' part before their last message; they may differ in that one only")
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise RowError("'chosen' and 'rejected' must end with a message of role 'assistant'")
    prompt = _joined(prompt, shared)
    return [_Found(read_system(record) + prompt, chosen[-1].content, rejected[-1].content)]


def _joined(prompt: tuple[Message, ...], shared: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the prompt of a row whose completions begin with the messages `shared`: they may repeat it, or go on from it."""
    if not shared or not prompt:
        return prompt or shared
    if shared[0].role == "assistant":
        return prompt + shared
    # "prompt" as a text is often the user's last or first turn alone.
    if shared[: len(prompt)] == prompt or (len(prompt) == 1 and prompt[0] in shared):
        return shared
    if shared == prompt[-len(shared) :]:
        return prompt
    raise RowError("'chosen' and 'rejected' begin with another conversation than 'prompt'")


_NO_LABEL = ("", "none", "null", "n/a")
_TIES = ("AB", "BA", "TIE")


def _course(record: Mapping[str, Any], _seed: int) -> Iterator[_Found | RowError]:
    prompt = (Message("user", read_text(record, "question_complete")),)
    preferences = record.get("preference")
    if not isinstance(preferences, list) or not preferences:
        raise RowError("'preference' must be a list of at least one {A, B, overall, criteria}")
    for number, preference in enumerate(preferences, start=1):
        try:
            yield _labeled(prompt, preference)
        except RowError as error:
            yield RowError(str(error) if len(preferences) == 1 else f"preference {number}: {error}")


def _labeled(prompt: tuple[Message, ...], preference: Any) -> _Found:
    if not isinstance(preference, dict):
        raise RowError(f"a preference must be an object with A, B and overall, not {type(preference).__name__}")
    answers = {"A": read_text(preference, "A"), "B": read_text(preference, "B")}
    nested = preference.get("criteria")
    if nested is not None and not isinstance(nested, dict):
        raise RowError(f"'criteria' must be an object, not {type(nested).__name__}")
    labels = {name: value for name, value in {**preference, **(nested or {})}.items() if name not in ("A", "B", "criteria")}
    overall = _label(preference.get("overall"), "overall") or _label(labels.get("overall"), "overall")
    if overall is None:
        raise RowError("no 'overall' label; it says which answer is better, A or B")
    best = "A" if overall == "AB" else overall
    meaning = {best: "chosen", "B" if best == "A" else "A": "rejected", "AB": "tie"}
    criteria = tuple((name, meaning[label]) for name, label in _criteria(labels))
    return _Found(prompt, answers[best], answers["B" if best == "A" else "A"], criteria, overall == "AB")


def _criteria(labels: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the criteria that have a label; the overall one, which is often repeated among them, is no criterion."""
    for name, value in labels.items():
        if name == "other" and isinstance(value, str):
            # Criteria of the labeler's own: "Conciseness: B; Engagement: AB". A remark without a label is passed over.
            for part in re.split(r"[;,\n]", value):
                own, colon, label = part.rpartition(":")
                if colon and own.strip() and label.strip().upper() in ("A", "B", *_TIES):
                    yield own.strip().lower(), str(_label(label, own))
        elif name != "overall" and (value is None or isinstance(value, str)):
            known = _label(value, name, strict=name in _CRITERIA)
            if known is not None:
                yield name, known


_CRITERIA = ("correctness", "relevance", "clarity", "completeness")


def _label(value: Any, name: str, strict: bool = True) -> str | None:
    """Return "A", "B" or "AB", or None where no label was given; a strict one that is something else is refused."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NO_LABEL):
        return None
    label = value.strip().upper() if isinstance(value, str) else ""
    if label in _TIES:
        return "AB"
    if label in ("A", "B"):
        return label
    if not strict:  # a key of another kind that stands beside A and B: a date, the labeler
        return None
    raise RowError(f"'{name}' is {value!r}; write A, B, or AB for a tie")


_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")


def _is_dialogue(text: str) -> bool:
    return text.startswith("\n\nHuman:") and text.endswith(_ANSWER)


def _dialogue(record: Mapping[str, Any], _seed: int) -> list[_Found]:
    chosen, rejected = read_text(record, "chosen"), read_text(record, "rejected")
    shorter = min(len(chosen), len(rejected))
    shared = next((at for at in range(shorter) if chosen[at] != rejected[at]), shorter)
    cut = chosen.rfind(_ANSWER, 0, shared)
    if cut < 0:
        raise RowError("no 'prompt', and 'chosen' and 'rejected' are no dialogues that share a beginning up to 'Assistant:'")
    completions = [text[cut + len(_ANSWER) :] for text in (chosen, rejected)]
    if any(_TURN.search(text) for text in completions):
        raise RowError("the dialogues part before their last answer; they may differ in that one only")
    return [_Found(_turns(chosen[:cut]), completions[0].strip(), completions[1].strip())]


def _turns(dialogue: str) -> tuple[Message, ...]:
    before, *pieces = _TURN.split(dialogue)
    if before.strip() or not pieces:
        raise RowError("the dialogue does not begin with a turn, 'Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], text.strip()) for who, text in zip(pieces[::2], pieces[1::2], strict=True))


def _orca(record: Mapping[str, Any], _seed: int) -> list[_Found]:
    question = Message("user", read_text(record, "question"))
    return [_Found((*read_system(record), question), read_text(record, "chosen"), read_text(record, "rejected"))]


def _scored(record: Mapping[str, Any], seed: int) -> list[_Found]:
    question = read_text(record, "instruction" if record.get("instruction") is not None else "prompt")
    completions = record["completions"]
    if not isinstance(completions, list) or not all(isinstance(completion, dict) for completion in completions):
        raise RowError("'completions' must be a list of {response, overall_score}")
    scored = [(score, read_text(item, "response")) for item in completions if (score := _score(item)) is not None]
    if len(scored) < 2:
        raise RowError(f"a pair needs two completions with an 'overall_score' (or 'score'), this row has {len(scored)}")
    best, chosen = max(scored, key=lambda item: item[0])
    lower = [response for score, response in scored if score < best]
    if not lower:
        raise RowError(f"all {len(scored)} completions have the score {best:g}; none is preferred")
    # Drawn by what the row says, not by where it stands: the same rows in another order give the same pairs.
    return [
        _Found((*read_system(record), Message("user", question)), chosen, random.Random(f"{seed} {question}").choice(lower))
    ]


def _score(completion: Mapping[str, Any]) -> float | None:
    value = completion.get("overall_score")
    value = completion.get("score") if value is None else value
    try:
        score = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None  # "N/A" stands for a completion without a score
    return score if math.isfinite(score) else None


_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def _sharegpt(record: Mapping[str, Any], _seed: int) -> list[_Found]:
    turns = record["conversations"]
    if not isinstance(turns, list) or not turns:
        raise RowError("'conversations' must be a list of at least one {from, value}")
    prompt = tuple(read_message(turn, "conversations", "from", "value") for turn in turns)
    chosen, rejected = (read_message(record.get(name), name, "from", "value") for name in ("chosen", "rejected"))
    if chosen.role != "assistant" or rejected.role != "assistant":
        raise RowError("'chosen' and 'rejected' must be from 'gpt'")
    return [_Found(read_system(record) + prompt, chosen.content, rejected.content)]


_READERS: dict[Layout, Callable[[Mapping[str, Any], int], Sequence[_Found] | Iterator[_Found | RowError]]] = {
    Layout.pair: _pair,
    Layout.course: _course,
    Layout.dialogue: _dialogue,
    Layout.orca: _orca,
    Layout.scored: _scored,
    Layout.sharegpt: _sharegpt,
}


def read_system(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the message that the row's `system` text makes, none where it is empty."""
    if record.get("system") is None:
        return ()
    text = read_text(record, "system")
    return (Message("system", text),) if text.strip() else ()


def read_messages(value: Any, name: str) -> tuple[Message, ...]:
    """Return the conversation of a list of {role, content}; raises RowError naming the key `name`."""
    if not isinstance(value, list) or not value:
        raise RowError(f"'{name}' must be a text or a list of {{role, content}}, and not empty")
    return tuple(read_message(item, name, "role", "content") for item in value)


def read_message(value: Any, name: str, role: str, content: str) -> Message:
    """Return one turn, from the keys `role` and `content` of `value`; raises RowError naming the key `name`."""
    if not isinstance(value, dict) or not isinstance(value.get(role), str):
        raise RowError(f"'{name}' must hold messages of the form {{{role}, {content}}}")
    known = _SPEAKERS.get(value[role].lower())
    if known is None:
        raise RowError(f"'{name}' holds a message of role '{value[role]}'; known are {', '.join(_SPEAKERS)}")
    return Message(known, read_text(value, content))


def read_text(record: Mapping[str, Any], name: str) -> str:
    """Return the text under a key of a row; raises RowError where there is none."""
    value = record.get(name)
    if value is None:
        raise RowError(f"no '{name}'; the keys are {', '.join(map(str, record))}")
    if not isinstance(value, str):
        raise RowError(f"'{name}' must be a text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"'{name}' holds characters that are no valid text; save it as UTF-8") from None
    return value


def check_prompt(prompt: Sequence[Message]) -> None:
    """Raise RowError where a prompt does not end with something that a user says."""
    if not prompt:
        raise RowError("no 'prompt', and 'chosen' and 'rejected' share no beginning")
    if prompt[-1].role != "user":
        raise RowError(f"the prompt ends with a message of role '{prompt[-1].role}'; it must end with the user's")
    if not prompt[-1].content.strip():
        raise RowError("the prompt is empty")
