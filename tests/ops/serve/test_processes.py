"""The service as a command: on one port with several processes, overloaded, killed, and stopped."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.serve import processes
from backchannel.ops.serve.processes import Plan
from backchannel.streams.config import Config
from backchannel.streams.journal.journal import JournalReader
from tests.support.ledgers import contents, sqlite_url

SETTINGS = """
[turns]
window_s = 1.0
lateness_s = 0.5
[commits]
publish_s = 0.3
[serve]
poll_s = 0.1
pending_mb = 1
[bandit]
strategies = ["lexical", "popular"]
"""
KILLS = 3


class Served:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=10.0)

    def kill(self) -> None:
        """Kill all of its processes at once."""
        self.client.close()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> str:
        """Stop it as a service manager does; return its log."""
        self.client.close()
        self.process.terminate()
        _, log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, log
        return log


@contextmanager
def serving(folder: Path, *options: str, settings: str = SETTINGS) -> Iterator[Served]:
    """Serve a store in `folder`."""
    (folder / "backchannel.toml").write_text(settings)
    command = [sys.executable, "-m", "backchannel", "serve", "--port", "0", "--log", "json"]
    command += ["--store", sqlite_url(folder), "--config", str(folder / "backchannel.toml"), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), process.communicate()[1]
        served = Served(process, url)
        assert answers(served)  # the address is printed once it listens
        yield served
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(happens: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def answers(served: Served) -> bool:
    assert served.process.poll() is None, served.process.communicate()[1]
    try:
        return served.client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def turn(number: int, ts: int) -> list[dict[str, Any]]:
    """Return the events of a turn."""
    ids = {"session_id": f"s{number % 7}", "query_id": f"q{number}", "ts": ts}
    shown = {"entity_id": "e", "position": 1, "strategies": ["lexical"]}
    return [
        {"type": "query", "text": "play hey jude", **ids},
        {"type": "impression", "results": [shown], "allocation": {"lexical": 5}, **ids},
        {"type": "click", "event_id": f"c{number}", "entity_id": "e", **ids},
    ]


def test_what_is_accepted_is_learned_once_however_often_all_processes_are_killed(tmp_path: Path) -> None:
    sent, kills = 0, 0
    while True:
        with serving(tmp_path) as served:
            last = kills == KILLS
            killer = threading.Timer(0.3 + 0.2 * kills, served.kill)
            if not last:
                killer.start()
            until = time.monotonic() + 1.0
            try:
                while not last or time.monotonic() < until:
                    batch = [event for place in range(20) for event in turn(sent + place, int(time.time() * 1000))]
                    response = served.client.post("/v1/events", json=batch)
                    assert response.status_code == 202, response.text
                    sent += 20  # only what was acknowledged is not sent again
            except (httpx.TransportError, RuntimeError):
                killer.join()
                kills += 1
                continue
            served.stop()
            break
    # What was learned before a kill and not acknowledged was sent again. Within the window it counts as a duplicate,
    # and after that as a turn that comes again: neither is lost.
    counts = contents(sqlite_url(tmp_path), Config())["counts"]
    assert sent > 100
    assert counts["query"] >= sent
    assert 0 <= counts["query"] - sent <= 20 * KILLS
    assert counts.get("dead_letter", 0) <= KILLS


def test_a_new_policy_is_live_in_all_processes_on_one_port(tmp_path: Path) -> None:
    with serving(tmp_path, "--processes", "2") as served:
        wait_for(lambda: served.client.get("/v1/policy").json()["version"] is not None)
        batch = [event for number in range(50) for event in turn(number, int(time.time() * 1000))]
        assert served.client.post("/v1/events", json=batch).json() == {"accepted": 150}

        def remembered() -> list[int]:
            found = []
            for _ in range(20):  # each connection comes to one of the processes
                with httpx.Client(base_url=served.client.base_url) as client:
                    found.append(client.get("/v1/policy").json()["remembered"])
            return found

        wait_for(lambda: min(remembered()) == 1)
        recalled = served.client.get("/v1/recall", params={"text": "play hey jude"}).json()["recalled"]
        assert [one["entity_id"] for one in recalled] == ["e"]
        decided = served.client.post("/v1/decide", json={"text": "hey", "session_id": "s", "budget": 4}).json()
        assert sum(decided["allocation"].values()) == 4
        assert "backchannel_serve_events_total 150.0" in served.client.get("/metrics").text
        log = served.stop()
    assert "Traceback" not in log


def test_metrics_have_the_version_of_each_living_process_whoever_is_asked(tmp_path: Path) -> None:
    with serving(tmp_path, "--processes", "2") as served:

        def shown() -> float:
            found = re.search(
                r"^backchannel_serve_policy_version (.*)$", served.client.get("/metrics").text, re.MULTILINE
            )
            assert found
            return float(found[1])

        # One connection is to one of the processes.
        wait_for(lambda: shown() == served.client.get("/v1/policy").json()["version"])
        for pid in answering(served.process.pid):
            os.kill(pid, signal.SIGKILL)
        served.client.close()
        served.client = httpx.Client(base_url=served.client.base_url, timeout=10.0)
        wait_for(lambda: answers(served))
        batch = [event for number in range(50) for event in turn(number, int(time.time() * 1000))]
        assert served.client.post("/v1/events", json=batch).json() == {"accepted": 150}
        wait_for(lambda: shown() > 1)
        served.stop()


def answering(parent: int) -> list[int]:
    """Return the processes that answer requests, which unlike the learning one have sockets."""
    children = [
        pid for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    sockets = {pid: [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()] for pid in children}
    return [int(pid) for pid, files in sockets.items() if any(one.startswith("socket:") for one in files)]


def test_an_overloaded_service_refuses_what_it_does_not_take_and_loses_nothing(tmp_path: Path) -> None:
    settings = SETTINGS.replace("pending_mb = 1", "pending_mb = 1\nbody_kb = 2048")
    padding = {f"k{number}": "x" * 250 for number in range(30)}
    accepted, refused = [], []
    with serving(tmp_path, settings=settings) as served:

        def send(thread: int) -> None:
            with httpx.Client(base_url=served.client.base_url, timeout=30.0) as client:
                for batch in range(4):
                    first = (thread * 4 + batch) * 100
                    ids = [f"q{number}" for number in range(first, first + 100)]
                    events = [
                        {"type": "query", "session_id": "s", "query_id": one, "text": "a", "context": padding}
                        for one in ids
                    ]
                    response = client.post("/v1/events", json=events)
                    if response.status_code == 202:
                        accepted.extend(ids)
                    else:
                        assert response.status_code == 429, response.text
                        assert int(response.headers["retry-after"]) >= 1
                        refused.extend(ids)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        served.stop()
    assert len(accepted) + len(refused) == 3200
    assert contents(sqlite_url(tmp_path), Config())["counts"]["query"] == len(accepted)


def test_a_service_without_events_reads_the_policy_only(tmp_path: Path) -> None:
    with serving(tmp_path, "--events", "none") as served:
        ready = served.client.get("/readyz")
        assert ready.status_code == 503
        assert "store.db" in ready.text
        decided = served.client.post("/v1/decide", json={"text": "hey", "session_id": "s", "budget": 4}).json()
        assert decided["allocation"] == {"lexical": 2, "popular": 2}
        assert served.client.post("/v1/events", json=turn(1, 1_700_000_000_000)).status_code == 501
        served.stop()


def plan(folder: Path) -> Plan:
    return Plan(
        store=sqlite_url(folder),
        config=Config(),
        events="journal",
        journal=folder / "journal",
        tokens=(),
        guess_from=None,
        log="text",
        host="127.0.0.1",
        port=0,
        processes=1,
    )


def test_a_learning_process_that_cannot_start_again_says_why_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "RESTART_S", 0.01)
    learning = processes.Learning(plan(tmp_path))
    (child,) = multiprocessing.active_children()
    child.kill()
    child.join()
    reader = JournalReader(tmp_path / "journal", 0)
    wait_for(lambda: "another service learns" in caplog.text)
    learning.close()
    reader.close()


def test_a_learning_process_that_ends_before_it_begins_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "learn", os._exit)  # which takes no plan
    with pytest.raises(processes.LearningError, match="ended before"):
        processes.Learning(plan(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--store", "postgresql://nobody@127.0.0.1:1/none"), "--journal"), (("--store", "mysql://x"), "mysql")],
)
def test_a_wrong_option_is_named(options: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, ["serve", *options])
    assert result.exit_code in {1, 2}
    assert said in result.stderr


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backchannel", "serve", "--store", sqlite_url(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_weak_token_is_refused() -> None:
    result = CliRunner().invoke(main, ["serve"], env={"BACKCHANNEL_TOKENS": "short"})
    assert result.exit_code == 2
    assert "BACKCHANNEL_TOKENS" in result.stderr
