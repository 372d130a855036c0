"""Services to measure as processes, and clients that load them, with keep-alive."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

START_S: Final = 120.0
"""Seconds within which a service must answer."""


def posted(path: str, body: bytes) -> bytes:
    """Return a request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send a request, and return the body of the answer.

    Raises:
        RuntimeError: the request is refused.
        OSError, asyncio.IncompleteReadError: the service is gone.
    """
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    if not head.startswith(b"http/1.1 20"):
        raise RuntimeError((head + body).decode())
    return body


@contextmanager
def running(command: Sequence[str], port: int, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of Python that serves on a port; wait until it answers, and stop it in the end."""
    with open(log or "/dev/null", "ab") as out:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command[:2])} does not answer{f'; see {log}' if log else ''}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def serve_command(store: str, port: int, *options: str) -> list[str]:
    """Return the module and arguments of a service."""
    return ["backchannel", "serve", "--store", store, "--port", str(port), *options]


def bare_command(port: int) -> list[str]:
    """Return the module and arguments of a server that answers with a constant; see `serve.bare`."""
    bare = "backchannel.ops.lab.bench.serve:bare"
    return ["granian", "--interface", "asgi", "--factory", "--no-ws", "--no-log", "--port", str(port), bare]


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def journalled(folder: Path) -> Iterator[dict[str, object]]:
    """Yield the events in a journal; half a line, which a killed process left, is none."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_bytes().split(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
