import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from backchannel.ops.broker import Broker, BrokerError, broker


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
    result = CliRunner().invoke(broker, ["start", "--data", str(tmp_path / "data")])
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
