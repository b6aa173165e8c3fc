import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistant.formats import Format, Row, counts_entries, read_mcqs
from assistant.mcq import LETTERS, MCQ
from ingest.errors import UserError

EXPECTED = MCQ("Where do rivers begin?", ("At the sea", "In the hills", "Underground"), "B")


def read(path: Path, text: str, layout: str | None = None) -> list[Row]:
    path.write_text(text, encoding="utf-8", newline="")
    return list(read_mcqs(path, layout))


def line_of_csv(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def numbers(mcq: MCQ) -> list[str]:
    return [str(number + 1) for number in range(len(mcq.options))]


def key_number(mcq: MCQ) -> int:
    return mcq.letters.index(mcq.answer or "A") + 1


def in_text(mcq: MCQ) -> str:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(mcq.letters, mcq.options, strict=True))
    return f"Question: {mcq.question}\n\nOptions:\n{listed}\n\nAnswer:"


def labeled(mcq: MCQ, labels: Any) -> list[dict[str, str]]:
    return [{"text": option, "label": label} for option, label in zip(mcq.options, labels, strict=True)]


def medmcqa(mcq: MCQ) -> dict[str, Any]:
    return {f"op{'abcd'[i]}": option for i, option in enumerate(mcq.options)} | {
        "question": mcq.question,
        "cop": key_number(mcq),
        "subject_name": "x",
    }


# Every layout as its published files have it: the suffix, the layout's name, and what writes a question in it.
WRITERS: dict[str, tuple[str, Format, Callable[[MCQ], Any]]] = {
    "course-2024": (".jsonl", Format.course_2024, lambda q: {"subject": "s", "question": in_text(q), "answer": q.answer}),
    "course-2025": (
        ".jsonl",
        Format.course_2025,
        lambda q: {"question": q.question, "choices": list(q.options), "answer": q.answer, "dataset": "d", "context": None},
    ),
    "arc nested": (
        ".jsonl",
        Format.arc,
        lambda q: {"id": "i", "question": {"stem": q.question, "choices": labeled(q, q.letters)}, "answerKey": q.answer},
    ),
    "arc nested, numbers": (
        ".json",
        Format.arc,
        lambda q: {"question": {"stem": q.question, "choices": labeled(q, numbers(q))}, "answerKey": str(key_number(q))},
    ),
    "arc columns": (
        ".json",
        Format.arc,
        lambda q: {
            "question": q.question,
            "choices": {"text": list(q.options), "label": numbers(q)},
            "answerKey": str(key_number(q)),
        },
    ),
    "openbookqa": (
        ".jsonl",
        Format.openbookqa,
        lambda q: {
            "question": {"stem": q.question, "choices": labeled(q, q.letters)},
            "fact1": "water flows down",
            "answerKey": q.answer,
        },
    ),
    "medmcqa": (".json", Format.medmcqa, medmcqa),
    "mmlu": (".csv", Format.mmlu, lambda q: line_of_csv(q.question, *q.options, q.answer or "")),
    "csv": (
        ".csv",
        Format.csv,
        lambda q: (
            line_of_csv("id", "question", *q.letters, "answer") + line_of_csv("7", q.question, *q.options, q.answer or "")
        ),
    ),
    "csv, numbers": (
        ".csv",
        Format.csv,
        lambda q: line_of_csv("Question", *numbers(q), "Answer") + line_of_csv(q.question, *q.options, str(key_number(q))),
    ),
}


def write(path: Path, name: str, mcq: MCQ) -> Path:
    suffix, _, writer = WRITERS[name]
    record = writer(mcq)
    file = path / f"questions{suffix}"
    file.write_text(record if suffix == ".csv" else json.dumps(record) + "\n", encoding="utf-8", newline="")
    return file


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_is_recognized_and_can_be_asked_for(name: str, tmp_path: Path) -> None:
    file = write(tmp_path, name, EXPECTED)
    for layout in (None, WRITERS[name][1], str(WRITERS[name][1])):
        (row,) = read_mcqs(file, layout)
        assert row.mcq is not None, row.error
        assert (row.mcq.question, row.mcq.options, row.mcq.answer) == (EXPECTED.question, EXPECTED.options, "B")


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_of_another_layout_than_the_one_asked_for_is_bad_and_named(name: str, tmp_path: Path) -> None:
    file, own = write(tmp_path, name, EXPECTED), WRITERS[name][1]
    for layout in Format:
        if layout == own or (own, layout) == (Format.openbookqa, Format.arc):  # the former is the latter with a fact
            continue
        rows = list(read_mcqs(file, layout))
        assert rows
        assert all(row.mcq is None for row in rows), layout
        assert rows[0].error.startswith(f"not in layout {layout}, it looks like {own}: "), rows[0].error


def test_a_layout_that_is_asked_for_decides_between_two(tmp_path: Path) -> None:
    both = json.dumps({"question": "Which? A. in the text B. as well", "choices": ["x", "y"], "answer": "B"})
    (row,) = read(tmp_path / "a.jsonl", both)
    assert row.mcq == MCQ("Which? A. in the text B. as well", ("x", "y"), "B")
    (row,) = read(tmp_path / "a.jsonl", both, "course-2024")
    assert row.mcq == MCQ("Which?", ("in the text", "as well"), "B")


def test_a_first_question_with_the_option_question_is_no_header(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.csv", "Why? is a,statement,question,order,wish,B\n")
    assert row.mcq == MCQ("Why? is a", ("statement", "question", "order", "wish"), "B")
    for header in ("answer,prompt,B,A", "A,B,question,answer", "input,1,2,target", "subject,question,answer"):
        assert read(tmp_path / "a.csv", header + "\n") == []


# No NUL: a file that begins with one is UTF-16 to its readers, and is refused as that.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)
PLAIN = st.text("abc éß漢,;\"'", min_size=1, max_size=20).map(lambda text: " ".join(text.split())).filter(bool)


@st.composite
def questions(draw: st.DrawFn, name: str) -> MCQ:
    # Options inside a text are found by their labels, and lose line ends: that layout is for plain text only.
    text = PLAIN if name == "course-2024" else TEXT
    options = draw(st.lists(text, min_size=2, max_size=4 if name == "medmcqa" else 10))
    return MCQ(draw(text).strip(), tuple(options), draw(st.sampled_from(LETTERS[: len(options)])))


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_question_is_read_back_from_any_layout(name: str, tmp_path: Path, data: st.DataObject) -> None:
    mcq = data.draw(questions(name))
    (row,) = read_mcqs(write(tmp_path, name, mcq))
    assert row.mcq is not None, row.error
    assert (row.mcq.question, row.mcq.options, row.mcq.answer) == (mcq.question, mcq.options, mcq.answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["question", "choices", "answer", "text", "label", "stem", "opa", "cop", "A", "B", "D", "fact1"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=JSON, layout=st.none() | st.sampled_from(Format))
def test_any_json_is_a_question_or_has_a_reason(tmp_path: Path, record: Any, layout: Format | None) -> None:
    (row,) = read(tmp_path / "a.jsonl", json.dumps(record), layout)
    assert (row.mcq is None) == bool(row.error)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60) | st.text('",\nab?\r\x00é').map(str.encode), suffix=st.sampled_from(["jsonl", "json", "csv"])
)
def test_any_bytes_are_read_or_refused_politely(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with suppress(UserError):
        assert all((row.mcq is None) == bool(row.error) for row in read_mcqs(path))


def test_ids_subjects_and_other_keys_are_kept_and_keys_may_be_missing(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path / "a.jsonl", json.dumps({"id": 7, "subject": "s", "question": "Q?", "choices": ["x", "y"], "extra": 1})
    )
    assert row.mcq == MCQ("Q?", ("x", "y"), None, "7", "s")
    assert row.fields["extra"] == 1
    (row,) = read_mcqs(write(tmp_path, "openbookqa", EXPECTED))
    assert row.fields["fact1"] == "water flows down"
    (row,) = read_mcqs(write(tmp_path, "medmcqa", EXPECTED))
    assert row.mcq is not None
    assert row.mcq.subject == "x"
    for name, subject in {
        "abstract_algebra_test.csv": "abstract_algebra",
        "anatomy_dev.csv": "anatomy",
        "quiz.csv": None,
    }.items():
        (row,) = read(tmp_path / name, "Q?,x,y,z,w,d\n")
        assert row.mcq == MCQ("Q?", ("x", "y", "z", "w"), "D", None, subject)
    (row,) = read(tmp_path / "quiz_test.csv", "question,A,B,subject,page\nQ?,x,y,s,3\n")
    assert row.mcq == MCQ("Q?", ("x", "y"), None, None, "s")
    assert row.fields["page"] == "3"


def test_layouts_may_be_mixed_in_one_file(tmp_path: Path) -> None:
    records = [writer(EXPECTED) for suffix, _, writer in WRITERS.values() if suffix != ".csv"]
    rows = read(tmp_path / "a.jsonl", "\ufeff" + "\n".join(map(json.dumps, records)))
    assert [row.mcq and row.mcq.options for row in rows] == [EXPECTED.options] * len(records)
    rows = read(tmp_path / "a.json", json.dumps(records, indent=2))
    assert [row.mcq and row.mcq.answer for row in rows] == ["B"] * len(records)


def test_a_question_of_fewer_options_leaves_the_last_columns_empty(tmp_path: Path) -> None:
    for name, text in {"a.csv": "question,A,B,C,D,answer\nQ?,x,y,,,B\n", "b.csv": "Q?,x,y,,,B\n"}.items():
        (row,) = read(tmp_path / name, text)
        assert row.mcq == MCQ("Q?", ("x", "y"), "B")


@pytest.mark.parametrize("key", ["Ｂ", "ｂ", "Ⓑ", "ⓑ", "⒝", "(B)", "B.", " b ", "\N{CYRILLIC CAPITAL LETTER VE}", "Β"])
def test_keys_in_other_forms_are_understood(key: str, tmp_path: Path) -> None:
    rows = read(tmp_path / "a.jsonl", json.dumps({"question": "Q?", "choices": ["x", "y", "z"], "answer": key}))
    rows += read(tmp_path / "a.csv", f"Q?,x,y,z,{key}\n")
    assert [row.mcq and row.mcq.answer for row in rows] == ["B", "B"]


def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    good = json.dumps({"question": "Q?", "choices": ["x", "y"], "answer": "A"})
    arc = {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}
    bad = {
        2: ('{"question": "Q?",', "not valid JSON"),
        3: ('["Q?"]', "expected an object"),
        4: ('{"text": "Q?"}', "no 'question'; the keys are text"),
        5: ('{"question": "Q?", "choices": ["x"]}', "only one option"),
        6: ('{"question": "Q?", "choices": "xy"}', "'choices' must be a list"),
        7: ('{"question": "Q?", "choices": ["x", "y"], "answer": "C"}', "the key is 'C'"),
        8: ('{"question": "Q?", "choices": ["x", "y"], "answer": 0}', "may count from 0 or from 1; write the letter, A to B"),
        9: ('{"question": "just text"}', "no 'choices' (or 'A', 'B', ...), and no options found"),
        10: ('{"question": "Q?", "choices": ["x", "y"], "answer": ["A"]}', "the key must be the label of an option"),
        11: ("[" * 100_000, "nested too deeply"),
        12: ('{"question": "\\ud800?", "choices": ["x", "y"]}', "no valid text"),
        13: (json.dumps({"question": 5, "choices": ["x", "y"]}), "'question' must be a text, not int"),
        14: (json.dumps(arc | {"choices": {"text": ["x", "y"], "label": ["A"]}}), "every choice needs a 'text' and a 'label'"),
        15: (json.dumps(arc | {"choices": {"text": ["x", "y"], "label": ["A", "A"]}}), "two choices are labeled A"),
        16: (json.dumps(arc | {"choices": [{"text": "x", "label": "A"}, "y"]}), "'choices' must be a list of {text, label}"),
        17: (json.dumps({"question": "Q?", "opa": "x", "opb": "y", "cop": 0}), "'cop' is 0, but counts from 1"),
        18: (json.dumps({"question": "Q?", "opa": "x", "opb": "y", "cop": 3}), "the key is '3'"),
        19: (json.dumps({"question": "Q?", "A": "x", "B": "y", "D": "z"}), "a column D, but no column C"),
        20: (json.dumps({"question": "Q?", "choices": ["x"] * 11}), "11 options"),
    }
    rows = read(tmp_path / "a.jsonl", "\n".join([good, *(text for text, _ in bad.values()), "", good]))
    assert [row.line for row in rows] == [1, *bad, 22]
    assert [row.line for row in rows if row.mcq] == [1, 22]
    for row in rows[1:-1]:
        assert bad[row.line][1] in row.error


def test_bytes_that_are_no_utf8_spoil_their_own_row_only(tmp_path: Path) -> None:
    good, bad = b'{"question": "Q?", "choices": ["x", "y"]}', b'{"question": "\xe9t\xe9?", "choices": ["x", "y"]}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, bad, b"\xe9", good]))
    (tmp_path / "a.csv").write_bytes(b"Q?,x,y,A\n\xe9t\xe9?,x,y,A\nQ?,x,\xff,A\nQ?,x,y,A\n")
    for name in ("a.jsonl", "a.csv"):
        rows = list(read_mcqs(tmp_path / name))
        assert [row.mcq is not None for row in rows] == [True, False, False, True]
        assert all("save" in row.error and "UTF-8" in row.error for row in rows[1:3])


def test_bad_csv_rows_are_named_where_they_begin(tmp_path: Path) -> None:
    rows = read(
        tmp_path / "a.csv", 'question,A,B,answer\nQ, with comma?,x,y,A\n\n"two\nlines?",x,y,A\nonly,two\n"open,x,y\nQ?,x,y\n'
    )
    assert [(row.line, row.mcq is not None) for row in rows] == [(2, False), (4, True), (6, False), (7, False)]
    assert "quote cells that hold commas" in rows[0].error
    assert "1 cells on lines 7 to 8 under a header of 4; close the quotation mark" in rows[3].error
    long = "x" * csv.field_size_limit()
    rows = read(tmp_path / "a.csv", f"Q?,{long}x,y,A\nQ?,x,y,A\nQ?;x;y;A\nQ?,x,A\n")
    assert [row.mcq is not None for row in rows] == [False, True, False, False]
    assert [row.line for row in rows] == [1, 2, 3, 4]
    assert "not valid CSV" in rows[0].error
    assert "separated by commas, found 1 cell" in rows[2].error


def test_files_that_cannot_be_read_at_all_are_said(tmp_path: Path) -> None:
    cases = {
        "a.txt": (b"x", "unknown kind"),
        "a.json": (b'[{"question": 1},\n{"question": 2}', r"not valid JSON .*line 2"),
        "b.json": (b'{\n"questions": []\n}', "a single object; write a list of questions"),
        "utf16.jsonl": ('{"question": "Q?"}'.encode("utf-16"), "save it as UTF-8"),
        "twice.csv": (b"question,A,B,a,answer\nQ?,x,y,z,A", "names a twice"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(read_mcqs(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_mcqs(tmp_path / "missing.jsonl"))
    (tmp_path / "folder.csv").mkdir()
    for folder in (tmp_path, tmp_path / "folder.csv"):
        with pytest.raises(UserError, match="is a folder; give a file"):
            list(read_mcqs(folder))
    with pytest.raises(UserError, match="'mmlo' is no layout of questions, did you mean 'mmlu'"):
        list(read_mcqs(tmp_path / "a.json", "mmlo"))


def test_a_json_file_holds_a_list_or_an_object_a_line(tmp_path: Path) -> None:
    good = json.dumps({"question": "Q?", "choices": ["x", "y"]})
    lines = read(tmp_path / "lines.json", f"\n{good}\n{{bad\n{good}\n")
    assert [(row.line, row.mcq is not None) for row in lines] == [(2, True), (3, False), (4, True)]
    entries = read(tmp_path / "list.json", f"\n[\n{good},\n5,\n{good}]")
    assert [(row.line, row.mcq is not None) for row in entries] == [(1, True), (2, False), (3, True)]
    assert read(tmp_path / "empty.json", "") == []
    assert [counts_entries(tmp_path / name) for name in ("lines.json", "list.json", "empty.json")] == [False, True, False]


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Q?,x,y,A\n" * 100_000, encoding="utf-8")
    rows: Iterator[Row] = read_mcqs(path)
    next(rows)
    path.write_text("", encoding="utf-8")  # what has not been read is gone
    assert len(list(rows)) < 10_000


REAL = {
    "textbooks/introduction-sociology.jsonl": (Format.course_2025, 369),
    "mcqa/arc/arc_easy_validation.json": (Format.arc, 570),
    "mcqa/arc/ARC-Challenge-Dev.jsonl": (Format.arc, 299),
    "mcqa/openbookqa/dev_complete.jsonl": (Format.openbookqa, 500),
    "mcqa/medmcqa/dev.json": (Format.medmcqa, 2091),
    "mcqa/mmlu/test/sociology_test.csv": (Format.mmlu, 201),
    "mcqa/mmlu/dev/abstract_algebra_dev.csv": (Format.mmlu, 5),
}


@pytest.mark.parametrize("path", REAL)
def test_real_question_sets_are_read_whole(path: str, data: Path) -> None:
    layout, count = REAL[path]
    rows = list(read_mcqs(data / path))
    assert len(rows) == count
    assert all(row.mcq and row.mcq.answer for row in rows), [row.error for row in rows if row.error]
    assert rows == list(read_mcqs(data / path, layout))
    if layout == Format.mmlu:
        assert {row.mcq and row.mcq.subject for row in rows} == {Path(path).stem.rpartition("_")[0]}


def test_all_mmlu_subjects_are_read_whole(data: Path) -> None:
    for path in sorted((data / "mcqa" / "mmlu" / "dev").glob("*.csv")):
        rows = list(read_mcqs(path))
        assert [len(row.mcq.options) if row.mcq else row.error for row in rows] == [4] * 5


def test_gpqa_puts_the_right_answer_anywhere_but_always_there(tmp_path: Path) -> None:
    header = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID"
    lines = [f"What is {n} + {n}?,{2 * n},{2 * n + 1},{2 * n + 2},{2 * n + 3},rec{n}" for n in range(40)]
    path = tmp_path / "gpqa_main.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    mcqs = [row.mcq for row in read_mcqs(path)]
    keys = []
    for n, mcq in enumerate(mcqs):
        assert mcq is not None
        assert mcq.answer is not None
        assert mcq.options[mcq.answer_index] == str(2 * n)
        assert mcq.id == f"rec{n}"
        keys.append(mcq.answer)
    assert set(keys) == {"A", "B", "C", "D"}
    assert [row.mcq for row in read_mcqs(path)] == mcqs
    path = tmp_path / "gpqa.jsonl"
    path.write_text('{"Question": "Why?", "Correct Answer": "So"}\n', encoding="utf-8")
    (bad,) = read_mcqs(path)
    assert "no 'Incorrect Answer 1'" in bad.error
