import json
from pathlib import Path

import pytest

from assistant.formats import Row, read_mcqs
from assistant.mcq import MCQ
from ingest.errors import UserError

EXPECTED = MCQ("Where do rivers begin?", ("At the sea", "In the hills", "Underground"), "B")


def read(path: Path, text: str) -> list[Row]:
    path.write_text(text, encoding="utf-8")
    return list(read_mcqs(path))


def test_the_course_layouts_and_csv_give_the_same_question(tmp_path: Path) -> None:
    options = list(EXPECTED.options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True))
    in_text = f"Question: {EXPECTED.question}\n\nOptions:\n{listed}\n\nAnswer:"
    layouts = {
        "2025.jsonl": json.dumps({"question": EXPECTED.question, "choices": options, "answer": "B"}),
        "2024.jsonl": json.dumps({"subject": "geo", "question": in_text, "answer": "B"}),
        "list.json": json.dumps([{"question": EXPECTED.question, "choices": options, "answer": "b"}]),
        "header.csv": f"id,question,A,B,C,D,answer\nq1,{EXPECTED.question},{options[0]},{options[1]},{options[2]},,B\n",
        "mmlu.csv": f"{EXPECTED.question},{options[0]},{options[1]},{options[2]},B\n",
        "bom.jsonl": "\ufeff" + json.dumps({"question": EXPECTED.question, "choices": options, "answer": "B"}),
    }
    for name, text in layouts.items():
        (row,) = read(tmp_path / name, text)
        assert row.mcq is not None, (name, row.error)
        assert (row.mcq.question, row.mcq.options, row.mcq.answer) == (EXPECTED.question, EXPECTED.options, "B"), name


def test_ids_and_subjects_are_kept_and_keys_may_be_missing(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path / "a.jsonl", json.dumps({"id": 7, "subject": "s", "question": "Q?", "choices": ["x", "y"], "extra": 1})
    )
    assert row.mcq == MCQ("Q?", ("x", "y"), None, "7", "s")


def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    good = json.dumps({"question": "Q?", "choices": ["x", "y"], "answer": "A"})
    bad = {
        2: ('{"question": "Q?",', "not valid JSON"),
        3: ('["Q?"]', "expected an object"),
        4: ('{"text": "Q?"}', "no 'question'"),
        5: ('{"question": "Q?", "choices": ["x"]}', "only one option"),
        6: ('{"question": "Q?", "choices": "xy"}', "'choices' must be a list"),
        7: ('{"question": "Q?", "choices": ["x", "y"], "answer": "C"}', "the key is 'C'"),
        8: ('{"question": "Q?", "choices": ["x", "y"], "answer": 0}', "must be a letter"),
        9: ('{"question": "just text"}', "no options found"),
    }
    rows = read(tmp_path / "a.jsonl", "\n".join([good, *(text for text, _ in bad.values()), "", good]))
    assert [row.line for row in rows] == [1, *bad, 11]
    assert [row.line for row in rows if row.mcq] == [1, 11]
    for row in rows[1:-1]:
        assert bad[row.line][1] in row.error


def test_csv_rows_with_a_comma_too_many_are_named(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", "question,A,B,answer\nQ, with comma?,x,y,A\nQ?,x,y,A\nonly,two\n")
    assert [bool(row.mcq) for row in rows] == [False, True, False]
    assert (rows[0].line, "quote cells" in rows[0].error) == (2, True)


def test_files_that_cannot_be_read_at_all_are_said(tmp_path: Path) -> None:
    cases = {
        "a.txt": (b"x", "unknown kind"),
        "a.json": (b'{"question": 1}\n{"question": 2}', "name it .jsonl"),
        "b.json": (b'{"question": 1}', "expected a list"),
        "a.jsonl": (b'{"question": "\xff"}', "not UTF-8"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(read_mcqs(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_mcqs(tmp_path / "missing.jsonl"))


def test_real_question_sets_are_read_whole(data: Path) -> None:
    for path, count in {"textbooks/introduction-sociology.jsonl": 369, "mcqa/mmlu/test/sociology_test.csv": 201}.items():
        rows = list(read_mcqs(data / path))
        assert len(rows) == count
        assert all(row.mcq and row.mcq.answer for row in rows)
