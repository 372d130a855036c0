"""Whoever cannot listen is told which option is wrong, before any work."""

import socket
from contextlib import closing

import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main


@pytest.mark.parametrize("command", [["serve"], ["dashboard"], ["playground"]], ids=lambda command: command[0])
def test_a_taken_port_and_a_foreign_address_are_named(
    command: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("taken")
    monkeypatch.chdir(folder)
    if command != ["playground"]:
        (folder / "store.db").touch()
        command = [*command, "--store", "sqlite:///store.db"]
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(main, [*command, "--port", port])
    assert done.exit_code == 1
    assert done.output == (
        f"Error: --host 127.0.0.1 --port {port}: Address already in use; choose another one, 0 takes any that is free\n"
    )
    if command[0] == "serve":
        done = CliRunner().invoke(main, [*command, "--host", "192.0.2.1"])
        assert done.exit_code == 1
        assert "--host 192.0.2.1 --port 8766: Cannot assign" in done.output
