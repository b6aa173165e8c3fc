"""Every layout of preference data, and what is said of rows that hold no pair."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import UserError
from training.pairs import Layout, Message, Pair, PairRow, fold_system, normalize, prompt_key
from training.preferences import read_preferences


def read(folder: Path, *rows: Any, seed: int = 0) -> list[PairRow]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_preferences(path, seed))


def read_one(folder: Path, row: Any, seed: int = 0) -> Pair:
    (found,) = read(folder, row, seed=seed)
    assert found.error == ""
    assert found.pair is not None
    return found.pair


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def user(content: str) -> tuple[Message, ...]:
    return (Message("user", content),)


LABELS = {
    "course_id": 1,
    "question_id": 2,
    "question_complete": "Why is the sky blue?",
    "preference": [
        {
            "A": "It scatters light.",
            "B": "It is painted.",
            "overall": "B",
            "criteria": {
                "overall": "B",
                "correctness": "A",
                "relevance": "AB",
                "clarity": "B",
                "completeness": "None",
                "other": "Conciseness: B; Engagement: AB; nice",
            },
        }
    ],
}


@pytest.mark.parametrize(
    ("row", "layout", "pair"),
    [
        (
            {"prompt": "Two and two?", "chosen": " 4", "rejected": " 5"},
            Layout.pair,
            Pair(user("Two and two?"), " 4", " 5", "rows.jsonl", 1),
        ),
        (
            {
                "chosen": [said("user", "Hi"), said("assistant", "Hello")],
                "rejected": [said("user", "Hi"), said("assistant", "No")],
            },
            Layout.pair,
            Pair(user("Hi"), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {
                "prompt": [said("system", "Be kind."), said("user", "Hi")],
                "chosen": [said("assistant", "Hello")],
                "rejected": [said("assistant", "No")],
            },
            Layout.pair,
            Pair((Message("system", "Be kind."), Message("user", "Hi")), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {  # as in ultrafeedback_binarized: the completions repeat the prompt
                "prompt": "Hi",
                "chosen": [said("user", "Hi"), said("assistant", "Hello")],
                "rejected": [said("user", "Hi"), said("assistant", "No")],
            },
            Layout.pair,
            Pair(user("Hi"), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Heavens"},
            Layout.dialogue,
            Pair(user("Hi"), "Hello", "Heavens", "rows.jsonl", 1),
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See you",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: Go",
            },
            Layout.dialogue,
            Pair(
                (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")), "See you", "Go", "rows.jsonl", 1
            ),
        ),
        (
            {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello", "rejected": " No"},
            Layout.pair,
            Pair(user("Hi"), " Hello", " No", "rows.jsonl", 1),
        ),
        (
            {"system": "Be kind.", "question": "Hi", "chosen": "Hello", "rejected": "No"},
            Layout.orca,
            Pair((Message("system", "Be kind."), Message("user", "Hi")), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {"system": "", "question": "Hi", "chosen": "Hello", "rejected": "No"},
            Layout.orca,
            Pair(user("Hi"), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {
                "instruction": "Hi",
                "completions": [
                    {"response": "No", "overall_score": 2},
                    {"response": "Hello", "overall_score": "7.5"},
                    {"response": "unscored", "overall_score": "N/A"},
                ],
            },
            Layout.scored,
            Pair(user("Hi"), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            {
                "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            Layout.sharegpt,
            Pair((Message("system", "Be kind."), Message("user", "Hi")), "Hello", "No", "rows.jsonl", 1),
        ),
        (
            LABELS,
            Layout.course,
            Pair(
                user("Why is the sky blue?"),
                "It is painted.",
                "It scatters light.",
                "rows.jsonl",
                1,
                (
                    ("correctness", "rejected"),
                    ("relevance", "tie"),
                    ("clarity", "chosen"),
                    ("conciseness", "chosen"),
                    ("engagement", "tie"),
                ),
            ),
        ),
        (
            {
                "question_complete": "Q?",
                "preference": [{"A": "a", "B": "b", "overall": "A", "correctness": "A", "clarity": None, "relevance": ""}],
            },
            Layout.course,
            Pair(user("Q?"), "a", "b", "rows.jsonl", 1, (("correctness", "chosen"),)),
        ),
        (
            {"question_complete": "Q?", "preference": [{"A": "a", "B": "b", "overall": "AB", "criteria": {"overall": "AB"}}]},
            Layout.course,
            Pair(user("Q?"), "a", "b", "rows.jsonl", 1, (), tied=True),
        ),
    ],
)
def test_a_row_of_each_layout(tmp_path: Path, row: Any, layout: Layout, pair: Pair) -> None:
    assert read(tmp_path, row) == [PairRow(1, pair, layout=layout)]


DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello"
SCORED = {"response": "x", "score": 3}
BEGUN = [said("user", "Hi"), said("assistant", "x")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "expected an object with 'chosen' and 'rejected', found list"),
        ({"prompt": "Hi", "chosen": "x"}, "no 'rejected'; the keys are prompt, chosen"),
        ({}, "no 'chosen' and no 'rejected'"),
        ({"prompt": 3, "chosen": "x", "rejected": "y"}, "'prompt' must be a text or a list"),
        ({"prompt": "Hi", "chosen": "x", "rejected": None}, "'chosen' must be a text or a list"),
        ({"prompt": " ", "chosen": "x", "rejected": "y"}, "the prompt is empty"),
        ({"prompt": "Hi \ud800", "chosen": "x", "rejected": "y"}, "'prompt' holds characters that are no valid text"),
        ({"chosen": BEGUN, "rejected": [said("assistant", "y")]}, "part before their last message"),
        ({"chosen": BEGUN[1:], "rejected": [said("assistant", "y")]}, "share no beginning"),
        ({"chosen": BEGUN[:1], "rejected": BEGUN[:1]}, "must end with a message of role 'assistant'"),
        ({"chosen": [said("tool", "x")], "rejected": BEGUN}, "a message of role 'tool'; known are human, user"),
        ({"chosen": [{"text": "x"}], "rejected": BEGUN}, "'chosen' must hold messages of the form {role, content}"),
        ({"prompt": "Other", "chosen": BEGUN, "rejected": BEGUN}, "begin with another conversation than 'prompt'"),
        (
            {"prompt": BEGUN, "chosen": "x", "rejected": "y"},
            "ends with a message of role 'assistant'; it must end with the user's",
        ),
        ({"chosen": "x", "rejected": "y"}, "no 'prompt', and 'chosen' and 'rejected' are no dialogues"),
        ({"chosen": DIALOGUE, "rejected": DIALOGUE + "\n\nHuman: Bye\n\nAssistant: Bye"}, "part before their last answer"),
        ({"chosen": DIALOGUE + "\n\nHuman: Bye\n\nAssistant: Bye", "rejected": DIALOGUE}, "part before their last answer"),
        ({"chosen": "x" + DIALOGUE, "rejected": "x" + DIALOGUE}, "does not begin with a turn"),
        ({"question": ["Hi"], "chosen": "x", "rejected": "y"}, "'question' must be a text, not list"),
        ({"prompt": "Hi", "completions": "x"}, "'completions' must be a list"),
        ({"prompt": "Hi", "completions": [SCORED, {"response": "y"}]}, "two completions with an 'overall_score' (or 'score')"),
        ({"prompt": "Hi", "completions": [SCORED, SCORED, SCORED]}, "all 3 completions have the score 3; none is preferred"),
        ({"completions": [SCORED]}, "no 'prompt'"),
        ({"conversations": []}, "'conversations' must be a list of at least one"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": "x"}, "'chosen' must hold messages of the form {from"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}]}
            | {name: {"from": "human", "value": "x"} for name in ("chosen", "rejected")},
            "must be from 'gpt'",
        ),
        ({"preference": [{}]}, "no 'question_complete'"),
        ({"question_complete": "Q?", "preference": []}, "'preference' must be a list of at least one"),
        ({"question_complete": "Q?", "preference": ["A"]}, "a preference must be an object"),
        ({"question_complete": "Q?", "preference": [{"A": "a", "overall": "A"}]}, "no 'B'; the keys are A, overall"),
        ({"question_complete": "Q?", "preference": [{"A": "a", "B": "b", "overall": "None"}]}, "no 'overall' label"),
        (
            {"question_complete": "Q?", "preference": [{"A": "a", "B": "b", "overall": "C"}]},
            "'overall' is 'C'; write A, B, or AB",
        ),
        (
            {"question_complete": "Q?", "preference": [{"A": "a", "B": "b", "overall": "A", "criteria": {"clarity": "very"}}]},
            "'clarity' is 'very'",
        ),
        (
            {"question_complete": "Q?", "preference": [{"A": "a", "B": "b", "overall": "A", "criteria": ["A"]}]},
            "'criteria' must be an object, not list",
        ),
    ],
)
def test_a_bad_row_says_why_and_costs_itself_only(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"prompt": "Two and two?", "chosen": "4", "rejected": "5"}
    bad, after = read(tmp_path, row, good)
    assert bad.pair is None
    assert reason in bad.error
    assert (after.line, after.error) == (2, "")


TOP_KEYS = ("prompt", "chosen", "rejected", "question", "system", "instruction", "completions", "conversations", "preference")
KEYS = st.sampled_from(
    (*TOP_KEYS, "response", "score", "from", "value", "role", "content", "question_complete", "A", "B", "overall", "criteria")
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["A", "user", "gpt"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES, max_size=4))
def test_whatever_a_row_holds_it_is_a_pair_or_says_why(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    found = read(tmp_path_factory.mktemp("rows"), *rows)
    assert {row.line for row in found} == set(range(1, len(rows) + 1))
    assert all((row.pair is None) == bool(row.error) for row in found)


def test_an_entry_gives_a_row_for_each_preference(tmp_path: Path) -> None:
    entry = {
        "question_complete": "Q?",
        "preference": [
            {"A": "a", "B": "b", "overall": "A"},
            {"A": "a", "B": "b", "overall": None},
            {"A": "c", "B": "d", "overall": "B"},
        ],
    }
    first, second, third = read(tmp_path, entry)
    assert first.pair is not None
    assert third.pair is not None
    assert (first.pair.chosen, third.pair.chosen) == ("a", "d")
    assert second.error.startswith("preference 2: no 'overall' label")
    assert {row.line for row in (first, second, third)} == {1}


def test_of_scored_completions_the_loser_is_drawn_by_the_seed(tmp_path: Path) -> None:
    completions = [{"response": "best", "overall_score": 9}]
    completions += [{"response": f"worse {number}", "overall_score": number} for number in range(6)]
    rows = [{"instruction": f"Question {number}?", "completions": completions} for number in range(30)]

    def drawn(rows: list[Any], seed: int = 0) -> dict[str, str]:
        pairs = [row.pair for row in read(tmp_path, *rows, seed=seed) if row.pair]
        assert {pair.chosen for pair in pairs} == {"best"}
        return {pair.prompt[0].content: pair.rejected for pair in pairs}

    assert drawn(rows) == drawn(rows[::-1])
    assert drawn(rows) != drawn(rows, seed=1)
    assert set(drawn(rows).values()) == {f"worse {number}" for number in range(6)}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "list.json", "list.json.gz"])
def test_every_kind_of_file_names_its_rows(tmp_path: Path, name: str) -> None:
    good = '{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}'
    listed = f'[{good},\n{{"prompt": "Hi"}}, {good}]'
    text = listed if name.startswith("list") else f'\ufeff\n{good}\n{{"prompt": "Hi"}}\n{good}\n'
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows = list(read_preferences(tmp_path / name))
    assert [(row.line, row.error == "") for row in rows] == (
        [(1, True), (2, False), (3, True)] if name.startswith("list") else [(2, True), (3, False), (4, True)]
    )
    assert all(row.pair.source == name for row in rows if row.pair)


def test_lines_that_are_no_json_or_no_text_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": \n{"prompt": "\xff", "chosen": "x", "rejected": "y"}\n{"a": \xff}\n')
    errors = [row.error for row in read_preferences(path)]
    assert errors[0].startswith("not valid JSON (Expecting value")
    assert errors[1] == "'prompt' holds characters that are no valid text; save it as UTF-8"
    assert errors[2] == "not UTF-8 text; save the file as UTF-8"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "unknown kind of file; use one of .jsonl"),
        ("a.json", b"[1, 2", "not valid JSON"),
        ("a.json", b'{\n"prompt": "Hi"}', "an object over several lines"),
        ("a.jsonl", "{}".encode("utf-16"), "is not UTF-8 text"),
        ("a.jsonl.gz", b"plain", "no whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 9000, mtime=0)[:-12], "no whole gzip file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_preferences(tmp_path / name))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*none\.jsonl"):
        list(read_preferences(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="is a folder"):
        list(read_preferences(tmp_path))


def test_system_text_folds_into_the_first_user_turn() -> None:
    talk = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
    assert fold_system(talk) == (Message("user", "Be kind.\n\nHi"), *talk[2:])
    assert fold_system(talk[1:]) == talk[1:]


def test_prompts_are_told_apart_by_their_words_alone() -> None:
    assert normalize("  What's ｔhe\tSTRASSE?! ") == normalize("what s the straße")
    assert normalize("C is x") != normalize("C++ is x")
    assert normalize("?!") == "?!"
    plain = Pair(user("Hi!"), "a", "b", "x", 1)
    assert prompt_key(plain) == prompt_key(Pair((Message("system", "Be kind."), Message("user", "hi")), "c", "d", "y", 2))
    assert prompt_key(plain) != prompt_key(Pair((*user("Hi"), Message("assistant", "Hello"), *user("Hi")), "a", "b", "x", 1))


def test_the_real_sets_are_read(data: Path) -> None:
    folder = data / "preference"
    if not folder.is_dir():
        pytest.skip("no preference data here; set MCQA_DATA to a folder with preference")
    dialogues = list(read_preferences(folder / "hh-rlhf" / "harmless-base-1500.jsonl.gz"))
    assert Counter(row.layout for row in dialogues) == {Layout.dialogue: 1500}
    assert [row.line for row in dialogues if row.error] == [1255]  # the two go different ways before the last answer
    talks = list(read_preferences(folder / "llamafactory" / "dpo_en_demo.json"))
    assert Counter((row.layout, row.error) for row in talks) == {(Layout.sharegpt, ""): 300}
    assert sum(row.pair.prompt[0].role == "system" for row in talks if row.pair) == 80
