import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.local.broker import USUAL_PORT, Broker, BrokerError


@pytest.mark.parametrize("program", ["java", "mvn"])
def test_a_missing_program_is_one_line_that_says_what_to_do(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for present in {"java", "mvn"} - {program}:
        (programs / present).write_text("#!/bin/sh\n")
        (programs / present).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["broker", "start", "--data", str(tmp_path / "data")])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert f"`{program}` is not installed" in line
    assert "BACKCHANNEL_KAFKA" in line
    assert "docker compose" in line


def test_a_stale_pid_file_is_not_taken_for_a_running_broker(tmp_path: Path) -> None:
    (tmp_path / "broker.pid").write_text(str(os.getpid()))
    local = Broker(tmp_path)
    assert local.status() == {"running": False, "servers": None, "pid": None, "data": str(tmp_path)}
    local.kill()


def test_a_port_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broker, "_class_path", lambda _: "")
    monkeypatch.setattr("shutil.which", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is taken"):
            Broker(tmp_path, port).start()


def test_a_port_is_no_wish_where_the_broker_runs_at_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "pid", 1)
    (tmp_path / "ports.json").write_text(json.dumps({"port": 4001, "controller_port": 4002}))
    other, same = (
        CliRunner().invoke(main, ["broker", "start", "--data", str(tmp_path), "--port", p]) for p in ("4003", "4001")
    )
    assert other.exit_code == 1
    assert "127.0.0.1:4001" in other.output
    assert same.exit_code == 0
    assert "127.0.0.1:4001" in same.output


def test_the_usual_port_is_taken_where_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert Broker(_made(tmp_path / "first"), usual=port)._choose_ports()["port"] not in {0, port}
    second = _made(tmp_path / "second")
    assert Broker(second, usual=port)._choose_ports()["port"] == port
    assert Broker(second, usual=USUAL_PORT)._choose_ports()["port"] == port  # where it was the last time


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
