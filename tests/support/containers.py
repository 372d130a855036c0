"""Containers without a daemon: buildah, in a folder of its own, and a network that nobody else is in."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_CLONE_NEWNET: Final = 0x40000000
_STOP_S: Final = 60.0


class Buildah:
    """Images and containers in a folder. They need no daemon, and no mounts that outlive them.

    Args:
        folder: the folder; `close` removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self.command: Final = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self.command.append("--storage-driver=vfs")
        self.environment: Final = {**os.environ, "TMPDIR": str(folder)}

    def __call__(self, *arguments: str) -> str:
        """Run a command of buildah, and return what it prints."""
        command = [*self.command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def debian(self, release: str, packages: Sequence[str], tag: str) -> None:
        """Make an image of Debian with its Python, as a stand-in for an official one."""
        container = self("from", "scratch")
        root = Path(self("mount", container))
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", release, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
        (root / "usr" / "bin" / "python").symlink_to("python3")
        for cache in ("cache/apt", "lib/apt/lists"):
            shutil.rmtree(root / "var" / cache)
        self("unmount", container)
        self("commit", "--rm", container, tag)

    def close(self) -> None:
        """Remove containers and images: with this storage driver they are folders."""
        shutil.rmtree(self._folder)


class Container:
    """A service of a compose file, running.

    Args:
        buildah: runs it.
        image: the image.
        service: the service, as the compose file has it.
        environment: replaces the service's environment.
        hosts: names that mean this machine.
        log: the file for what it prints.
    """

    def __init__(
        self,
        buildah: Buildah,
        image: str,
        service: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        hosts: Sequence[str],
        log: Path,
    ) -> None:
        config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
        self._buildah: Final = buildah
        self._health: Final = service.get("healthcheck", {}).get("test", config["Healthcheck"]["Test"])
        self._name: Final = buildah("from", *(f"--add-host={host}:127.0.0.1" for host in hosts), image)
        self.log: Final = log
        self._options: Final = [
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(f"--cap-drop={name}" for name in service["cap_drop"]),
            *(f"--mount=type=tmpfs,destination={folder}" for folder in service["tmpfs"]),
        ]
        command = [*config["Entrypoint"], *(service.get("command") or config["Cmd"])]
        with log.open("ab") as out:
            self._process: Final = subprocess.Popen(
                self._run(*command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=buildah.environment,
                start_new_session=True,
            )

    def healthy(self) -> bool:
        """Ask what the health check asks, in the container."""
        assert self._process.poll() is None, self.log.read_text()
        kind, *command = self._health
        assert kind == "CMD"
        asked = self._run(*command)
        done = subprocess.run(asked, capture_output=True, check=False, env=self._buildah.environment, timeout=60)
        return done.returncode == 0

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        return self._process.wait(_STOP_S)

    def stop(self) -> int:
        """Send SIGTERM as an engine does, and return the exit code."""
        os.kill(self._inside(), signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def owned(self, user: int) -> list[Path]:
        """Return the files that belong to a user."""
        return [path for path in Path(self._buildah("mount", self._name)).rglob("*") if path.lstat().st_uid == user]

    def _run(self, *command: str) -> list[str]:
        return [*self._buildah.command, "run", "--isolation=chroot", *self._options, self._name, "--", *command]

    def _inside(self) -> int:
        """Return the process id of the command, below buildah's own processes."""
        pid = self._process.pid
        while Path(os.readlink(f"/proc/{pid}/exe")).name.startswith(("buildah", "memfd:buildah")):
            # Each thread has children of its own.
            children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
            pid = int(" ".join(children).split()[0])
        return pid


@contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and what it starts, into an empty network: its ports are free, and nobody else reaches them."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network of its own")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        if libc.setns(before, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "back to the network")
        os.close(before)
