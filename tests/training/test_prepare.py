"""Filters, split and mixing; the folder that is written; and the commands as a user meets them."""

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.formats import read_mcqs
from ingest.errors import UserError
from tests.assistant.test_quiz import CORPUS, STORY
from training import cli
from training.filters import Filters, filter_repeats, filter_rows
from training.near import near_duplicates
from training.pairs import Message, Pair, normalize, prompt_key
from training.prepare import Preparation, Share, Source, parse_share, parse_split, prepare, split

ANIMALS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")


def pair(prompt: str, chosen: str = "yes", rejected: str = "no", line: int = 1, **more: Any) -> Pair:
    return Pair((Message("user", prompt),), chosen, rejected, "a.jsonl", line, **more)


def source(*pairs: Pair, share: float | int | None = None) -> Source:
    return Source("a.jsonl", 0, "", list(pairs), share=share)


def said(pairs: list[Pair]) -> Counter[tuple[str, str, str]]:
    return Counter((one.prompt[0].content, one.chosen, one.rejected) for one in pairs)


# Few different prompts, written in several ways: groups of very different sizes.
prompts = st.sampled_from(
    [f"{start}{animal}{end}" for animal in ANIMALS for start in ("", " ", "THE ") for end in ("?", " ?!", "")]
)
some_pairs = st.lists(
    st.builds(pair, prompts, st.sampled_from(ANIMALS), st.sampled_from(ANIMALS), st.integers(1, 99)), min_size=1
)
shares = st.sampled_from([(80.0, 20.0), (50.0, 50.0), (75.0, 12.5, 12.5), (1.0, 1.0, 98.0), (98.0, 1.0, 1.0)])


@given(some_pairs, shares, st.integers())
def test_no_prompt_stands_on_two_sides_and_no_row_is_lost(pairs: list[Pair], percent: tuple[float, ...], seed: int) -> None:
    groups = Counter(map(prompt_key, pairs))
    if len(groups) < len(percent):
        with pytest.raises(UserError, match="cannot be split"):
            split(pairs, percent, seed)
        return
    parts = split(pairs, percent, seed)
    sides = [set(map(prompt_key, part)) for part in parts]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert said([one for part in parts for one in part]) == said(pairs)
    assert all(parts)


@given(some_pairs, shares, st.integers(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_move_a_split(
    pairs: list[Pair], percent: tuple[float, ...], seed: int, order: random.Random
) -> None:
    if len(set(map(prompt_key, pairs))) < len(percent):
        return
    shuffled = order.sample(pairs, len(pairs))
    assert list(map(said, split(pairs, percent, seed))) == list(map(said, split(shuffled, percent, seed)))


@pytest.mark.parametrize("by", ["prompt", "row"])
def test_parts_have_the_sizes_asked_for(by: str) -> None:
    pairs = [pair(f"question {number}") for number in range(800)]
    assert [len(part) for part in split(pairs, (75, 12.5, 12.5), by=by)] == [600, 100, 100]  # type: ignore[arg-type]
    assert said(split(pairs, (50, 50), seed=1)[0]) != said(split(pairs, (50, 50), seed=2)[0])


def test_a_split_by_row_lets_prompts_stand_on_two_sides() -> None:
    pairs = [pair("the same", f"answer {number}") for number in range(10)]
    assert [len(part) for part in split(pairs, (80, 20), by="row")] == [8, 2]
    with pytest.raises(UserError, match="1 prompt cannot be split into 2 parts"):
        split(pairs, (80, 20), by="prompt")


@given(some_pairs, st.integers(1, 3))
def test_filters_keep_what_they_promise_and_count_the_rest(pairs: list[Pair], most: int) -> None:
    filters = Filters(per_prompt=most, max_words=3, near_duplicates=1.0)
    rows, gone = filter_rows(pairs, filters)
    kept, repeats = filter_repeats(rows, filters)
    assert len(kept) + sum(one.count for one in [*gone, *repeats]) == len(pairs)
    assert all(one.chosen != one.rejected for one in kept)
    assert max(said(kept).values(), default=1) == 1
    assert max(Counter(map(prompt_key, kept)).values(), default=1) <= most
    # What is left passes again.
    again, none = filter_repeats(kept, filters)
    assert again == kept
    assert all(one.count == 0 for one in none)


@pytest.mark.parametrize(
    ("one", "filters", "name"),
    [
        (pair("q", tied=True), Filters(), "tie"),
        (pair("q", " \n"), Filters(), "empty"),
        (pair("q", "yes", " "), Filters(), "empty"),
        (pair("q", "so be  it", " so be it"), Filters(), "identical"),
        (pair("q", criteria=()), Filters(supported=True), "unsupported"),
        (pair("q", criteria=(("clarity", "rejected"), ("relevance", "tie"))), Filters(supported=True), "unsupported"),
        (pair("one two", "three", "three four"), Filters(max_words=3), "too many words"),
        (pair("1234", "5", "56"), Filters(max_characters=5), "too many characters"),
    ],
)
def test_each_filter_removes_and_says_where(one: Pair, filters: Filters, name: str) -> None:
    good = pair("q", line=7, criteria=(("clarity", "chosen"), ("relevance", "rejected")))
    kept, removed = filter_rows([one, good], filters)
    assert kept == [good]
    assert [(gone.filter, gone.count, gone.examples) for gone in removed if gone.count] == [(name, 1, ("a.jsonl row 1",))]


def test_filters_that_are_not_asked_for_remove_nothing() -> None:
    plain = [pair("one two three " * 500), pair("q", criteria=(("clarity", "rejected"),))]
    assert filter_rows(plain, Filters())[0] == plain
    assert filter_rows([plain[0]], Filters(supported=True))[0] == [plain[0]]  # no layout with criteria


def grams(text: str, part: str) -> set[tuple[str, ...]]:
    words = normalize(text).split()
    return {(part, *words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def similarity(one: Pair, other: Pair) -> float:
    def sets(of: Pair) -> tuple[set[tuple[str, ...]], ...]:
        return grams(of.prompt[0].content, "p"), grams(of.chosen, "c") | grams(of.rejected, "r")

    return min(len(a & b) / len(a | b) for a, b in zip(sets(one), sets(other), strict=True))


words = st.lists(st.sampled_from(("ant", "Bee,", "cat.")), min_size=1, max_size=12).map(" ".join)


@given(st.lists(st.builds(pair, words, words, words), max_size=12), st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]))
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(pairs: list[Pair], threshold: float) -> None:
    expected: list[int] = []
    for at, one in enumerate(pairs):
        if any(similarity(one, pairs[other]) >= threshold - 1e-9 for other in range(at) if other not in expected):
            expected.append(at)
    assert near_duplicates(pairs, threshold) == expected


def test_a_long_text_changed_in_one_word_is_a_near_duplicate_and_its_answer_to_another_prompt_is_not() -> None:
    text = " ".join(f"word{number}" for number in range(100))
    first = pair(text, text, text + " more")
    touched = pair(text.replace("word0", "other"), text.upper(), text + " most")
    elsewhere = pair("A question of another kind?", text, text + " more")
    assert near_duplicates([first, touched, elsewhere], 0.9) == [1]


def test_a_share_is_a_number_after_the_last_equals_sign(tmp_path: Path) -> None:
    assert parse_share("a.jsonl") == Share(Path("a.jsonl"))
    assert parse_share("a.jsonl=0.6") == Share(Path("a.jsonl"), fraction=0.6)
    assert parse_share("a=b.jsonl=5000") == Share(Path("a=b.jsonl"), count=5000)
    assert parse_share("a=b.jsonl") == Share(Path("a=b.jsonl"))
    (tmp_path / "a=5").touch()
    assert parse_share(str(tmp_path / "a=5")) == Share(tmp_path / "a=5")
    for wrong in ("a.jsonl=1.5", "a.jsonl=0.0", "a.jsonl=0"):
        with pytest.raises(UserError, match="a.jsonl="):
            parse_share(wrong)


def test_a_split_is_two_or_three_percentages() -> None:
    assert parse_split("80/20") == (80, 20)
    assert parse_split("75/12.5/12.5") == (75, 12.5, 12.5)
    for wrong in ("", "100", "80/30", "120/-20", "100/0", "25/25/25/25", "a/b", "nan/nan"):
        with pytest.raises(UserError, match="is no split"):
            parse_split(wrong)


def test_mixing_draws_the_share_of_each_source_whatever_the_order() -> None:
    many = [pair(f"question {number}") for number in range(100)]
    other = [pair(f"other {number}") for number in range(100)]

    def drawn(first: list[Pair], second: list[Pair], seed: int = 0) -> dict[str, list[Pair]]:
        sources = [source(*first, share=0.6), source(*second, share=15)]
        prepared = prepare(sources, Preparation(seed=seed))
        assert [one.used for one in sources] == [60, 15]
        return prepared.parts

    def texts(parts: dict[str, list[Pair]]) -> set[str]:
        return {one.prompt[0].content for part in parts.values() for one in part}

    parts = drawn(many, other)
    kinds = Counter(text.split()[0] for text in texts(parts))
    assert kinds == {"question": 60, "other": 15}
    assert drawn(many[::-1], other[::-1]) == parts
    assert texts(drawn(many, other, seed=1)) != texts(parts)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`mcqa-train` with the given arguments: its exit status, and what it printed on either stream."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mcqa-train", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return run


Run = Callable[..., tuple[int, str, str]]


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Fifty pairs on ten prompts, one of them there twice."""
    made = [
        {
            "prompt": f"What is {number % 10} and {number % 10}?",
            "chosen": f"It is {number}, I think.",
            "rejected": f"No {number}.",
        }
        for number in range(50)
    ]
    return write_rows(tmp_path / "rows.jsonl", *made, made[0])


def parts_of(folder: Path) -> dict[str, list[Any]]:
    return {
        path.stem: list(map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])) for path in folder.glob("*.jsonl")
    }


def test_preferences_from_files_to_parts_and_card(train: Run, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "prefs"
    status, out, err = train("prepare", "preferences", rows, "-o", output, "--split", "60/20/20", "--license", "CC0")
    assert (status, err) == (0, "")
    assert "Left out as duplicate: 1 (rows.jsonl row 51)" in out
    assert "Pairs: 30 train (6 prompts), 10 valid (2 prompts), 10 test (2 prompts)" in out
    assert sorted(path.name for path in output.iterdir()) == [
        "card.json",
        "card.md",
        "test.jsonl",
        "train.jsonl",
        "valid.jsonl",
    ]
    parts = parts_of(output)
    every = [row for part in parts.values() for row in part]
    assert all(list(row) == ["prompt", "chosen", "rejected"] for row in every)
    found = next(row for row in every if row["rejected"][0]["content"] == "No 13.")
    assert found == {
        "prompt": [{"role": "user", "content": "What is 3 and 3?"}],
        "chosen": [{"role": "assistant", "content": "It is 13, I think."}],
        "rejected": [{"role": "assistant", "content": "No 13."}],
    }
    card = json.loads((output / "card.json").read_text(encoding="utf-8"))
    content = rows.read_bytes()
    assert card["sources"] == [
        {
            "name": "rows.jsonl",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "layouts": {"prompt-chosen-rejected": 51},
            "rows": 51,
            "bad_rows": 0,
            "bad_examples": [],
            "share": None,
            "used": 51,
        }
    ]
    assert (card["kind"], card["license"]) == ("preferences", "CC0")
    assert card["parts"]["test"] == {
        "pairs": 10,
        "prompts": 2,
        "prompts_also_in_train": 0,
        "sha256": hashlib.sha256((output / "test.jsonl").read_bytes()).hexdigest(),
    }
    assert card["words"]["chosen"] == {"mean": 5.0, "median": 5, "p95": 5}
    assert (card["words"]["chosen_longer"], card["words"]["rejected_longer"]) == (1.0, 0.0)
    for text in ((output / "card.json").read_text(encoding="utf-8"), (output / "card.md").read_text(encoding="utf-8")):
        assert str(tmp_path) not in text
        assert card["sha256"] in text


def test_the_same_rows_in_another_order_make_the_same_files(train: Run, rows: Path, tmp_path: Path) -> None:
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(lines[::-1]), encoding="utf-8")
    options = ("--per-prompt", 3, "--near-duplicates", 0.9)
    hashes = []
    for at, (path, seed) in enumerate([(rows, 0), (other, 0), (rows, 1)]):
        status, out, _ = train("prepare", "preferences", path, "-o", tmp_path / str(at), "--json", "--seed", seed, *options)
        summary = json.loads(out)
        assert (status, summary["output"]) == (0, str(tmp_path / str(at)))
        assert sum(part["pairs"] for part in summary["parts"].values()) == 30
        hashes.append(summary["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_rows_are_named_the_rest_is_used_and_the_status_is_3(train: Run, rows: Path, tmp_path: Path) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.writelines(['{"prompt": "Hi"}\n'] * 7)
    status, out, err = train("prepare", "preferences", rows, "-o", tmp_path / "out")
    assert status == 3
    assert err.splitlines()[0] == "rows.jsonl row 52: no 'chosen' and no 'rejected'; the keys are prompt"
    assert err.splitlines()[5:] == ["... and 2 more bad rows"]
    assert "Pairs: 40 train (8 prompts), 10 test (2 prompts)" in out
    card = json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))
    assert (card["sources"][0]["rows"], card["sources"][0]["bad_rows"]) == (58, 7)


def test_where_nothing_is_left_one_line_says_why(train: Run, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", {"prompt": "Hi"}, {"prompt": "Hi", "chosen": "x", "rejected": "x"})
    status, out, err = train("prepare", "preferences", path, "-o", tmp_path / "out")
    assert (status, out) == (1, "")
    assert err == (
        "error: no pair is left of a.jsonl: 1 cannot be used (the first, a.jsonl row 1: no 'chosen' and no 'rejected'; "
        "the keys are prompt); 1 left out as identical\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_split_by_row_warns_of_prompts_on_both_sides(train: Run, rows: Path, tmp_path: Path) -> None:
    status, _, err = train("prepare", "preferences", rows, "-o", tmp_path / "out", "--split-by", "row")
    assert status == 0
    held, learned = ({row["prompt"][0]["content"] for row in parts_of(tmp_path / "out")[part]} for part in ("test", "train"))
    assert held & learned
    assert err.startswith(f"warning: {len(held & learned)} of the {len(held)} prompts of test also stand in train")


def test_more_pairs_than_there_are_is_noted(train: Run, rows: Path, tmp_path: Path) -> None:
    status, _, err = train("prepare", "preferences", f"{rows}=500", "-o", tmp_path / "out")
    assert (status, err) == (0, "note: rows.jsonl has 51 usable pairs, fewer than the 500 asked for\n")


def test_a_folder_is_replaced_only_by_force_and_only_if_it_was_prepared(
    train: Run, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert train("prepare", "preferences", rows, "-o", output, "--split", "60/20/20")[0] == 0
    status, _, err = train("prepare", "preferences", rows, "-o", output)
    assert (status, "already exists" in err, "--force" in err) == (1, True, True)
    assert train("prepare", "preferences", rows, "-o", output, "--force")[0] == 0
    assert sorted(parts_of(output)) == ["test", "train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]

    monkeypatch.chdir(output)
    assert train("prepare", "preferences", rows, "-o", ".", "--force", "--split", "60/20/20")[0] == 0
    assert sorted(parts_of(output)) == ["test", "train", "valid"]
    monkeypatch.chdir(tmp_path)

    status, _, err = train("prepare", "preferences", rows, "-o", tmp_path, "--force")
    assert (status, "is not a folder of prepared data" in err) == (1, True)
    inside = rows.rename(output / "rows.jsonl")
    status, _, err = train("prepare", "preferences", inside, "-o", output, "--force")
    assert (status, "which --force would delete" in err) == (1, True)
    assert inside.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.jsonl",), "there is no file none.jsonl"),
        (("none.jsonl", "--split", "80/30"), "'80/30' is no split"),
        (("none.jsonl=7.5",), "a fraction is above 0 and at most 1"),
    ],
)
def test_what_is_wrong_is_one_line(train: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = train("prepare", "preferences", *arguments, "-o", tmp_path / "out")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_a_folder_that_cannot_be_written_is_named(train: Run, rows: Path) -> None:
    status, out, err = train("prepare", "preferences", rows, "-o", rows / "out")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "rows.jsonl/out cannot be written" in err


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Five keyed questions, then one without a key."""
    made: list[dict[str, Any]] = [
        {"question": f"What is {number} and 1?", "choices": [str(number), str(number + 1), str(number + 2)], "answer": "B"}
        for number in range(5)
    ]
    return write_rows(tmp_path / "quiz.jsonl", *made, {"question": "What is all?", "choices": ["1", "2"]})


def test_questions_give_the_right_option_against_each_wrong_one(train: Run, questions: Path, tmp_path: Path) -> None:
    status, _, err = train("prepare", "pairs", questions, "-o", tmp_path / "out")
    assert (status, err) == (3, "quiz.jsonl row 6: the question has no key; give it its 'answer'\n")
    parts = parts_of(tmp_path / "out")
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "test": 2}
    prompt = "What is 3 and 1?\nA. 3\nB. 4\nC. 5\nAnswer:"
    same = [row for part in parts.values() for row in part if row["prompt"][0]["content"].endswith(prompt)]
    assert {row["chosen"][0]["content"] for row in same} == {" B"}
    assert {row["rejected"][0]["content"] for row in same} == {" A", " C"}
    assert json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))["scoring"] == "letter"


def test_with_answers_the_wrong_option_that_the_model_prefers_is_used(train: Run, questions: Path, tmp_path: Path) -> None:
    made = [
        {"line": line, "question": f"What is {line - 1} and 1?", "letter": "B", "probabilities": {"A": 0.1, "B": 0.6, "C": 0.3}}
        for line in range(1, 6)
    ]
    made[2]["question"] = "Something else?"
    made[3] = {"line": 4, "error": "too long"}
    answers = write_rows(tmp_path / "answers.jsonl", *made[:4])
    status, _, err = train(
        "prepare", "pairs", questions, "-o", tmp_path / "out", "--scoring", "cloze", "--answers", answers, "--split", "50/50"
    )
    assert status == 3
    assert [line.partition(": ")[2] for line in err.splitlines()] == [
        "the file of answers has another question here; run `mcqa batch` on this file again",
        "the model gave no answer (too long)",
        "the file of answers has none for line 5",
        "the question has no key; give it its 'answer'",
    ]
    every = [row for part in parts_of(tmp_path / "out").values() for row in part]
    assert {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in every} == {(" 1", " 2"), (" 2", " 3")}
    assert all("A." not in row["prompt"][0]["content"] for row in every)

    wrong = write_rows(tmp_path / "wrong.jsonl", {"question": "What is 0 and 1?"})
    status, _, err = train("prepare", "pairs", questions, "-o", tmp_path / "new", "--answers", wrong)
    assert (status, "wrong.jsonl line 1 is no answer" in err) == (1, True)


def test_help_loads_nothing_heavy() -> None:
    import subprocess

    heavy = ("torch", "transformers", "chromadb", "gradio", "numpy", "pydantic")
    code = f"import training.cli, sys; before = {heavy}; print([name for name in before if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    shown = subprocess.run(
        [sys.executable, "-c", "from training.cli import main; main()", "prepare", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "preferences" in shown.stdout
    assert "pairs" in shown.stdout


def test_the_command_writes_a_question_file_that_keeps_the_pages(train: Run, tmp_path: Path) -> None:
    output = tmp_path / "quiz.jsonl"
    status, text, _ = train("prepare", "quiz", CORPUS / "operating-systems", "-o", output, "--questions", "10")
    assert status == 0
    assert text.startswith("10 questions")
    rows = list(read_mcqs(output))
    assert all(row.mcq is not None and row.mcq.answer for row in rows)
    assert {"document", "page", "evidence", "kind"} <= set(rows[0].fields)


def test_what_cannot_be_read_is_named_and_the_rest_is_used(train: Run, tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    (tmp_path / "course" / "story.txt").write_text("\n".join(page.text for page in STORY))
    status, text, errors = train("prepare", "quiz", tmp_path / "course", "-o", tmp_path / "q.jsonl", "--kind", "gap", "--json")
    assert status == 3
    assert "bad.pdf" in errors
    assert json.loads(text)["questions"] > 0


@pytest.mark.parametrize(
    ("folder", "output", "message"),
    [
        ("missing", "q.jsonl", "does not exist"),
        (".", "q.csv", "end it in .jsonl"),
        (".", "there.jsonl", "--force"),
        (".", "q.jsonl", "no course file"),
    ],
)
def test_what_cannot_be_made_says_why(train: Run, tmp_path: Path, folder: str, output: str, message: str) -> None:
    (tmp_path / "there.jsonl").write_text("")
    status, _, errors = train("prepare", "quiz", tmp_path / folder, "-o", tmp_path / output)
    assert status == 1
    assert message in errors
