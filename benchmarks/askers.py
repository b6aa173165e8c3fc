"""A class asks the page at once: errors, lost answers, seconds (median and 95th percentile), and the server's memory.

    mcqa ui --no-open --port 7860 &
    python benchmarks/askers.py http://127.0.0.1:7860 --pid PID --askers 50 --seconds 120

Each asker is a client of its own, with its own session, and asks the next question when the last was answered.
"""

import argparse
import contextlib
import json
import statistics
import threading
import time
from itertools import count
from pathlib import Path

from gradio_client import Client

QUESTIONS = Path(__file__).resolve().parent.parent / "corpus" / "operating-systems" / "questions.jsonl"


def memory(pid: int | None) -> float | None:
    """Return the resident memory of a process in MB, None where it cannot be known."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return None


def questions() -> list[str]:
    """Return the sample course's questions as a student pastes them."""
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    return [
        "\n".join((row["question"], *(f"{a}. {o}" for a, o in zip("ABCDEFGHIJ", row["choices"], strict=False)))) for row in rows
    ]


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--askers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--course", default="operating-systems")
    parser.add_argument("--pid", type=int, help="the server's, for its memory")
    given = parser.parse_args()
    pasted = questions()
    clients = [Client(given.address, verbose=False) for _ in range(given.askers)]
    took: list[float] = []
    errors: list[str] = []
    sent = count()

    def ask(client: Client, number: int) -> None:
        while time.monotonic() < until:
            question = pasted[(number + next(sent)) % len(pasted)]
            started = time.monotonic()
            try:
                answer = client.predict(given.course, question, "", "", "", api_name="/ask")[0]
            except Exception as error:  # noqa: BLE001 -- counted, whatever it is
                errors.append(f"{type(error).__name__}: {str(error)[:200]}")
                continue
            if '<div class="letter">' in answer:
                took.append(time.monotonic() - started)
            else:
                errors.append(f"no letter: {answer[:200]}")

    clients[0].predict(given.course, pasted[0], "", "", "", api_name="/ask")  # what is loaded once is loaded now
    grown = [memory(given.pid)]
    until = time.monotonic() + given.seconds
    threads = [threading.Thread(target=ask, args=(client, number)) for number, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(given.seconds / 4)
        grown.append(memory(given.pid))
    for thread in threads:
        thread.join()
    took.sort()
    asked = len(took) + len(errors)
    print(f"{given.askers} askers, {given.seconds:.0f} s: {asked} asked, {len(took)} answered, {len(errors)} errors")
    if took:
        p95 = took[min(len(took) - 1, int(0.95 * len(took)))]
        print(f"seconds: median {statistics.median(took):.2f}, 95th percentile {p95:.2f}, longest {took[-1]:.2f}")
        print(f"answers a second: {len(took) / given.seconds:.2f}")
    known = [f"{megabytes:.0f}" for megabytes in (*grown, memory(given.pid)) if megabytes]
    if known:
        print(f"memory in MB before, after each quarter, and in the end: {', '.join(known)}")
    for error in errors[:5]:
        print(error)


if __name__ == "__main__":
    main()
