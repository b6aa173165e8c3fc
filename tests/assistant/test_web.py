"""The page's server: what is put together, who may do what, and whose turn it is; without a browser."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.users import Users, add_user, read_users
from assistant.web import create_app, create_server
from assistant.web_look import bars, marked, notice, table
from assistant.web_service import Service, Turns
from ingest.course import Course, course_names
from ingest.errors import ModelError, UserError

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3))"
MCQS = [MCQ(f"What is {n} + {n}?", (str(2 * n), str(3 * n + 1))) for n in range(1, 7)]


def never(_: str | None) -> LanguageModel:
    raise AssertionError("loaded too early")


@pytest.fixture
def service(lm: LanguageModel) -> Service:
    return Service(lambda _: lm)


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    with TestClient(create_server(Service(never))) as client:
        yield client


def test_the_page_loads_no_model_until_it_is_asked(home: Path) -> None:
    assert create_app(Service(never)).title == "Course questions"


def test_the_server_says_that_it_is_well_and_lets_nothing_from_elsewhere_in(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": None}
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_proxy_with_tls_shows_the_page_under_a_path(home: Path) -> None:
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-host": "school.example"}
    with TestClient(create_server(Service(never), root_path="/mcqa")) as client:
        for path in ("/", "/mcqa/"):  # proxies take the prefix off, or leave it
            page = client.get(path, headers=forwarded)
            assert page.status_code == 200
            assert '"root":"https://school.example/mcqa"' in page.text


def test_texts_stay_texts_in_every_piece_of_html() -> None:
    for made in (
        notice(HOSTILE),
        marked(HOSTILE, ""),
        marked(f"{HOSTILE} More.", HOSTILE),
        table([HOSTILE], [[HOSTILE]], label=f'"{HOSTILE}'),
        bars("AB", [HOSTILE, "b"], [0.5, 0.5], "A"),
    ):
        assert "<script" not in made
        assert "<img" not in made
        assert "&lt;script&gt;" in made
    assert '"<' not in table(["a"], [[1]], label='"><b>')


def at_once(service: Service, mcqs: Sequence[MCQ]) -> list[Any]:
    """Ask all questions at the same time, each in a thread of its own, so that they wait together; returns what each got."""
    found: list[Any] = [None] * len(mcqs)

    def ask(place: int) -> None:
        try:
            found[place] = service.answer(mcqs[place], None)
        except UserError as error:
            found[place] = error

    with service.turns.turn():
        threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(mcqs))]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    return found


def test_many_askers_at_once_each_get_the_answer_to_their_own_question(service: Service) -> None:
    alone = [service.answer(mcq, None) for mcq in MCQS]
    together = at_once(service, MCQS)
    for mcq, answer, expected in zip(MCQS, together, alone, strict=True):
        assert answer.mcq == mcq
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=0.03)
    assert service.pace is not None


def test_a_class_that_asks_the_same_question_gets_an_answer_each(service: Service) -> None:
    assert [answer.mcq for answer in at_once(service, [MCQS[0]] * 5)] == [MCQS[0]] * 5


def test_one_bad_question_costs_no_other_asker_the_answer(service: Service) -> None:
    bad = MCQ("word " * 9000, ("a", "b"))
    assert [isinstance(one, UserError) for one in at_once(service, [bad, MCQS[0]])] == [True, False]


def test_a_question_goes_before_a_batch() -> None:
    turns, order = Turns(), []

    def use(name: str, asks: bool) -> None:
        with turns.turn(asks=asks):
            order.append(name)

    with turns.turn():
        waiting = [threading.Thread(target=use, args=("batch", False)), threading.Thread(target=use, args=("ask", True))]
        for thread in waiting:
            thread.start()
            time.sleep(0.1)
    for thread in waiting:
        thread.join()
    assert order == ["ask", "batch"]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_at_work(lm: LanguageModel) -> None:
    def load(name: str | None) -> LanguageModel:
        if name == "broken":
            raise ModelError("no model folder broken")
        return lm

    service = Service(load)
    service.lm()
    with pytest.raises(ModelError):
        service.switch("broken")
    assert service.lm() is lm


def test_students_cannot_do_what_staff_does(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    add_user(file, "ann", "correct horse", "staff")
    add_user(file, "bob", "battery staple")
    assert "correct horse" not in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o077 == 0
    users = Users(file)
    assert users.check("ann", "correct horse")
    assert not users.check("ann", "battery staple")
    assert not users.check("nobody", "")
    service = Service(never, users)
    service.require_staff(SimpleNamespace(username="ann"))
    for username in ("bob", "nobody", None):
        with pytest.raises(UserError, match="only staff"):
            service.require_staff(SimpleNamespace(username=username))
    Service(never).require_staff(None)  # without a file of users everybody is staff


def test_who_is_added_later_can_sign_in_and_bad_files_say_so(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    with pytest.raises(UserError, match="mcqa users add"):
        Users(file)
    add_user(file, "ann", "correct horse")
    users = Users(file)
    time.sleep(0.01)
    add_user(file, "bob", "battery staple", "staff")
    assert users.check("bob", "battery staple")
    assert users.is_staff("bob")
    with pytest.raises(UserError, match="too short"):
        add_user(file, "eve", "short")
    with pytest.raises(UserError, match="cannot be a user's name"):
        add_user(file, "../eve", "long enough")
    assert sorted(read_users(file)) == ["ann", "bob"]
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="no file of users"):
        Users(file)


def test_guessing_passwords_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assistant.users._PAUSE", 0.5)
    for name in ("ann", "bob"):
        add_user(tmp_path / "users.json", name, "correct horse")
    users = Users(tmp_path / "users.json")
    for guess in range(5):
        assert not users.check("ann", f"battery {guess}")
    assert not users.check("ann", "correct horse")  # not even looked at
    assert users.check("bob", "correct horse")
    time.sleep(0.6)
    assert users.check("ann", "correct horse")
    assert users.check("ann", "correct horse")


def test_nobody_gets_in_without_the_password(home: Path, tmp_path: Path) -> None:
    add_user(tmp_path / "users.json", "ann", "correct horse")
    with TestClient(create_server(Service(never, Users(tmp_path / "users.json")))) as client:
        assert client.get("/config").status_code == 401
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert client.get("/health").status_code == 200
        assert client.post("/login", data={"username": "ann", "password": "wrong one"}).status_code == 400
        assert client.post("/login", data={"username": "ann", "password": "correct horse"}).status_code == 200


def test_a_course_that_is_not_there_is_an_error_for_who_asked(service: Service, home: Path) -> None:
    with pytest.raises(UserError, match="no course"):
        service.answer(MCQS[0], "nothing")
    assert service.answer(MCQS[0], None).letter in "AB"
    assert Course("nothing")


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_the_server_itself_refuses_students_what_is_staffs(home: Path, tmp_path: Path, name: str) -> None:
    index = Course("birds")
    index.material.mkdir(parents=True)
    (index.material / "a.md").write_text("Herons wade.", encoding="utf-8")
    index.sync(index.material)
    add_user(tmp_path / "users.json", "ann", "correct horse", "staff")
    add_user(tmp_path / "users.json", "bob", "battery staple")
    calls: dict[str, list[Any]] = {
        "index": ["birds", [], 0], "reindex": ["birds", [], 0], "switch": ["smollm2-135m-instruct"],
        "rename": ["birds", "bees"], "remove": ["bees", True],
    }  # fmt: skip
    with TestClient(create_server(Service(lambda _: None, Users(tmp_path / "users.json")))) as client:  # type: ignore[arg-type, return-value]
        password = {"ann": "correct horse", "bob": "battery staple"}[name]
        assert client.post("/login", data={"username": name, "password": password}).status_code == 200
        outcomes = {}
        for call, data in calls.items():
            event = client.post(f"/gradio_api/call/{call}", json={"data": data}).json()["event_id"]
            outcomes[call] = "event: complete" in client.get(f"/gradio_api/call/{call}/{event}").text
    outcomes.pop("switch")  # which has no real model here to switch to
    assert set(outcomes.values()) == {name == "ann"}
    assert course_names() == ([] if name == "ann" else ["birds"])
