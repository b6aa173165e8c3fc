"""What an evaluation asks: real question files, MMLU's folder, and what is wrong with others."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from assistant.items import read_items
from ingest.errors import UserError

CORPUS = Path(__file__).resolve().parents[2] / "corpus"


@pytest.fixture
def mmlu(tmp_path: Path) -> Path:
    """A folder as MMLU's: two subjects, 6 and 3 questions, 2 examples each."""
    folder = tmp_path / "mmlu"
    for part, subject, count in (
        ("test", "anatomy", 6),
        ("test", "us_history", 3),
        ("dev", "anatomy", 2),
        ("dev", "us_history", 2),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        with (folder / part / f"{subject}_{part}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [f"{part} {subject} {n}?", "one", "two, or so", "3", "four", "ABCD"[n % 4]] for n in range(count)
            )
    return folder


def write(path: Path, *records: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def question(text: str, **more: object) -> dict[str, object]:
    return {"question": text, "choices": ["yes", "no"], "answer": "A", **more}


def test_a_question_file_with_ids_and_subjects() -> None:
    found = read_items(CORPUS / "operating-systems" / "questions.jsonl")
    assert [item.id for item in found.items] == [f"os-{n:02}" for n in range(1, 26)]
    assert {item.subject for item in found.items} == {"Operating Systems"}
    assert (found.bad, found.without_key) == ((), 0)
    assert read_items(CORPUS / "operating-systems").items == found.items  # its folder, PDFs and all


def test_mmlu_takes_subjects_from_file_names_and_examples_from_dev(mmlu: Path) -> None:
    found = read_items(mmlu, shots=2).items
    assert Counter(item.subject for item in found) == {"anatomy": 6, "us_history": 3}
    assert found[1].id == "anatomy_test.csv line 2"
    assert (found[1].mcq.options, found[1].key) == (("one", "two, or so", "3", "four"), "B")
    assert [example.question for example in found[0].examples] == ["dev anatomy 0?", "dev anatomy 1?"]
    assert [example.question for example in found[-1].examples] == ["dev us_history 0?", "dev us_history 1?"]
    assert all(not item.examples for item in read_items(mmlu).items)
    one = read_items(mmlu / "test" / "us_history_test.csv", shots=1).items
    assert [(item.subject, len(item.examples)) for item in one] == [("us_history", 1)] * 3


def test_subjects_are_chosen_by_name_and_a_limit_is_shared(mmlu: Path) -> None:
    assert {item.subject for item in read_items(mmlu, subjects=["US History"]).items} == {"us_history"}
    assert Counter(item.subject for item in read_items(mmlu, limit=4).items) == {"anatomy": 2, "us_history": 2}
    assert Counter(item.subject for item in read_items(mmlu, limit=8).items) == {"anatomy": 5, "us_history": 3}
    assert [item.mcq.question for item in read_items(mmlu, limit=3).items] == [
        "test anatomy 0?",
        "test anatomy 1?",
        "test us_history 0?",
    ]
    with pytest.raises(UserError, match="did you mean 'anatomy'"):
        read_items(mmlu, subjects=["anatomi"])


def test_the_real_mmlu_is_read_whole(data: Path) -> None:
    folder = data / "mcqa" / "mmlu"
    if not folder.is_dir():
        pytest.skip("no MMLU here; set MCQA_DATA to a folder with mcqa/mmlu")
    found = read_items(folder, shots=5)
    assert found.bad == ()
    assert len(found.items) > 1500
    assert len({item.id for item in found.items}) == len(found.items)
    for item in found.items:
        assert len(item.examples) == 5
        assert all(example.answer for example in item.examples)
        assert item.mcq not in item.examples


def test_equal_ids_of_two_files_stay_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", question("One?", id="1"), question("Two?", id="2"))
    write(tmp_path / "b.jsonl", question("Three?", id="1", subject="other"))
    found = read_items(tmp_path).items
    assert [item.id for item in found] == ["a.jsonl line 1", "2", "b.jsonl line 1"]
    assert [item.subject for item in found] == ["a", "a", "other"]


def test_a_question_is_not_shown_its_own_solution(tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", question("Same?", subject="s"))
    write(tmp_path / "dev" / "q.jsonl", question("Same?", subject="s"), question("Other?", subject="S"))
    assert [example.question for example in read_items(tmp_path, shots=1).items[0].examples] == ["Other?"]


def test_bad_rows_and_missing_keys_are_told(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", question("Good?"), {"question": "What?"}, question("No key?", answer=None))
    found = read_items(file)
    assert len(found.items) == 1
    assert found.bad[0].startswith(f"{file} line 2: no 'choices'")
    assert found.without_key == 1


def test_every_mistake_names_file_and_remedy(tmp_path: Path, mmlu: Path) -> None:
    keyless = write(tmp_path / "keyless.jsonl", question("Is it?", answer=None))
    empty = write(tmp_path / "empty.jsonl")
    (tmp_path / "bare").mkdir()
    (mmlu / "dev" / "us_history_dev.csv").unlink()
    cases: list[tuple[Path, int, str]] = [
        (keyless, 0, "an evaluation needs keys; add 'answer'"),
        (empty, 0, "holds no question"),
        (tmp_path / "bare", 0, "holds no question file"),
        (tmp_path / "nowhere", 0, "does not exist; give a question file"),
        (CORPUS / "operating-systems", 5, "--shots 5 takes solved examples from"),
        (mmlu, 2, "has 0 solved examples of the subject 'us_history'; add some"),
        (mmlu / "test" / "anatomy_test.csv", 5, "has 2 solved examples of the subject 'anatomy'; use --shots 2"),
    ]
    for path, shots, message in cases:
        with pytest.raises(UserError) as raised:
            read_items(path, shots=shots)
        assert message in str(raised.value)


def test_items_say_where_they_stand_and_on_what_fact_their_answer_rests(tmp_path: Path) -> None:
    rows = [question("One?"), question("Two?", answer=None), question("Three?", fact1="Three is odd. ")]
    path = write(tmp_path / "q.jsonl", *rows)
    found = read_items(path)
    assert [(item.place, item.fact) for item in found.items] == [(f"{path} line 1", ""), (f"{path} line 3", "Three is odd.")]
    assert found.keyless == (f"{path} line 2",)
