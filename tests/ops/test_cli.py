"""What all commands share: the list, the store option, and errors without tracebacks."""

import errno
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import _COMMANDS, _Group, main
from backchannel.ops.options import STORE_VARIABLE
from backchannel.streams.extras import install


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def test_every_command_that_has_a_usual_store_takes_it_from_the_environment() -> None:
    usual = {}
    for name, command in commands(main):
        for option in command.params:
            if option.name == "store" and isinstance(option.default, str):
                usual[name] = option.envvar
    assert {"run", "worker", "health", "snapshots list", "rewrites pin", "prime"} <= usual.keys()
    assert set(usual.values()) == {STORE_VARIABLE}, usual


def test_every_command_says_what_it_is_for() -> None:
    assert [name for name, command in commands(main) if not command.help] == []


def test_the_list_of_commands_says_what_each_command_says() -> None:
    context = click.Context(main)
    for name, entry in _COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert entry.help.removesuffix(".") == command.get_short_help_str(limit=1000).removesuffix("."), name


def test_what_a_command_imports_late_is_one_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "backchannel.ops.lab.convert.table", raising=False)
    monkeypatch.delattr("backchannel.ops.lab.convert.table", raising=False)
    log = tmp_path / "log.csv"
    log.write_text("q,t\n")
    done = CliRunner().invoke(main, ["convert", "table", str(log), "--map", "query=q", "--map", "time=t"])
    assert done.exit_code == 1
    assert done.output == f"Error: pyarrow is needed: {install('parquet')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "BAD", "--store", "sqlite://", "--dead-letters", "BAD/letters"],
        ["demo", "--report", "BAD/report"],
        ["evaluate", "no-such-log", "--report", "BAD/report"],
        ["bandits", "compare", "--plot", "BAD/plot.svg"],
        ["schemas", "--output", "BAD/schemas"],
        ["broker", "start", "--data", "BAD/data"],
        ["snapshots", "export", "1", "BAD/policy"],
        ["memory", "guesses", "."],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_path_that_cannot_be_used_is_one_line_before_the_work_begins(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("lab.demo.command.SearchWorld", "lab.bandits.command.regret"):
        monkeypatch.setattr(f"backchannel.ops.{work}", None)  # calling it is a TypeError
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.chdir(tmp_path)
    Path("BAD").write_text("a file, and no folder\n")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    (line,) = done.output.splitlines()
    reason = "Not a directory|File exists|No such file or directory"
    assert re.fullmatch(rf"Error: \S*(BAD|slurp_asr)\S*: ({reason})", line), line
    assert [path.name for path in tmp_path.iterdir()] == ["BAD"]


@pytest.mark.parametrize(
    "command", [["forget-user", "ann"], ["memory", "size"], ["snapshots", "list"], ["prime", "FILE"]]
)
def test_a_store_that_is_down_is_an_error_without_a_traceback(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    done = CliRunner().invoke(main, [*command, "--store", f"postgresql://127.0.0.1:{port}/none"])
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    assert str(port) in done.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_without_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "backchannel", "config"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["capacity", "--peak", "nan"], "--peak': nan is not a finite number"),
        (["capacity", "--events-per-day", "inf"], "--events-per-day': inf is not a finite number"),
        (["capacity", "--worker-rate", "0"], "--worker-rate': 0.0 is not in the range x>0"),
        (["memory", "recall", "a", "--guess-from", "nan"], "--guess-from': nan is not a finite number"),
    ],
)
def test_numbers_are_finite_and_within_bounds(options: list[str], says: str) -> None:
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 2
    assert says in done.stderr


def test_an_error_that_is_a_bug_keeps_its_traceback() -> None:
    @click.command("faulty")
    def faulty() -> None:
        raise OSError(errno.ENOTCONN, "ours")

    done = CliRunner().invoke(_Group(commands=[faulty]), ["faulty"])
    assert isinstance(done.exception, OSError)


def test_groups_list_their_commands_with_whole_sentences() -> None:
    for name in ("lab", "snapshots", "memory", "taught"):
        shown = CliRunner().invoke(main, [name, "--help"])
        assert "..." not in shown.output.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "meant"), [(["snapshot"], "snapshots"), (["snapshots", "shwo"], "show"), (["memory", "sise"], "size")]
)
def test_an_unknown_command_is_answered_with_one_of_a_similar_name(arguments: list[str], meant: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"Did you mean {meant}" in done.output


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["evaluate"], ["prime"], ["convert", "ubi"], ["memory", "evaluate"], ["rewrites", "block", "--file"]],
)
def test_a_missing_file_has_one_exit_code(arguments: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.jsonl")
    done = CliRunner().invoke(main, [*arguments, missing])
    assert (done.exit_code, f"{missing}: No such file" in done.output) == (1, True), done.output
