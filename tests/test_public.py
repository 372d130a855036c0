"""The public interface: what is exported, that all of it is there, and what importing it does not import."""

import subprocess
import sys
from pathlib import Path

import pytest

import backchannel
from backchannel import Query, encode

EXPORTED = {
    # Serving.
    *("PolicyReader", "ReaderStatus", "Policy", "Decision", "Recalled", "Rewriting", "context_of"),
    *("Candidate", "Ranking", "impression_of", "walk", "TaughtRule"),
    # Events.
    *("Event", "Query", "Impression", "Result", "Rewrite", "Click", "BargeIn", "EventDecoder", "encode"),
    *("Hypothesis", "Recognition"),
    *(
        "AskConfig",
        "Asker",
        "Budget",
        "Earlier",
        "earlier_of",
        "Feedback",
        "Teach",
        "Means",
        "Prefer",
        "Never",
        "Like",
        "LikeAttribute",
    ),
    # Errors.
    *(
        "BackchannelError",
        "ConfigError",
        "CorruptPolicyError",
        "EncodingError",
        "EventError",
        "NoPolicyError",
        "StoreError",
    ),
    # For River.
    "LinearThompsonSampling",
}

LABORATORY = {"matplotlib", "pandas", "scipy", "sklearn"}
KAFKA = {"aiohttp", "aiokafka", "faust", "kafka", "mode", "prometheus_client"}


def imported(program: str, *arguments: str) -> set[str]:
    """Top-level packages, and modules of ours, that a program has imported when it ends."""
    report = "import atexit, sys; atexit.register(lambda: print('\\n' + ' '.join(sys.modules)))\n"
    command = [sys.executable, "-c", report + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    return {name if name.startswith("backchannel.") else name.partition(".")[0] for name in modules}


def test_what_is_exported() -> None:
    assert set(backchannel.__all__) == EXPORTED
    assert set(dir(backchannel)) >= EXPORTED


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_export_is_there(name: str) -> None:
    assert getattr(backchannel, name) is not None


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Ledger'"):
        backchannel.Ledger  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    assert not imported("import backchannel") & {"numpy", "sqlalchemy", "msgspec", "click"}


def test_a_serving_process_imports_neither_kafka_nor_river() -> None:
    found = imported("from backchannel import PolicyReader, Query, context_of; PolicyReader; Query; context_of")
    assert "sqlalchemy" in found
    assert not found & {"river", *LABORATORY, *KAFKA}


COMMAND = "from backchannel.ops.cli import main; main(prog_name='backchannel')"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        ([], {"_BACKCHANNEL_COMPLETE": "bash_complete", "COMP_WORDS": "backchannel ", "COMP_CWORD": "1"}),
    ],
    ids=["help", "tab completion"],
)
def test_listing_the_commands_imports_none(
    arguments: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = imported(COMMAND, *arguments)
    assert "click" in found
    assert not found & {"numpy", "sqlalchemy", "msgspec", "rich", *LABORATORY, *KAFKA}
    assert [name for name in found if name.startswith("backchannel.ops.commands")] == []


def test_learning_from_a_small_file_imports_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    query = Query(event_id="e1", ts=1_700_000_000_000, session_id="s1", query_id="q1", text="play hey jude")
    file.write_bytes(encode(query) + b"\n")
    found = imported(COMMAND, "run", str(file), "--store", f"sqlite:///{tmp_path / 'policy.db'}")
    assert "numpy" in found
    assert not found & {*LABORATORY, *KAFKA}
