"""A real broker for development and tests, without Docker: Apache Kafka as one local process.

One node in KRaft mode, listening on 127.0.0.1 only. Its jars come from Maven (docker/kafka/pom.xml); its data, log and
pid file are in one folder.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from backchannel.ops.groups import Group
from backchannel.ops.options import json_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.kafka.config import SERVERS_VARIABLE

POM: Final = Path(__file__).resolve().parents[2] / "docker" / "kafka" / "pom.xml"
DEFAULT_DATA: Final = (
    Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "backchannel" / "kafka"
)
"""One folder per user, so that every command finds the broker from any directory."""
USUAL_PORT: Final = 9092
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0
JVM_OPTIONS: Final = (
    "-Xmx512m",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={data}/log
auto.create.topics.enable=false
# Records have the events' own times, which may be years ago: retention must not delete them.
log.retention.ms=-1
# There is one node, so one replica of everything.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# After a crash the node cannot rejoin until its last session expires: 9 s by default.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
# Development and tests start one worker at a time, so there is nobody to wait for.
group.initial.rebalance.delay.ms=0
"""


class BrokerError(BackchannelError, RuntimeError):
    """The local broker cannot be started or stopped. The message says why and what to do."""


class Broker:
    """One local Kafka broker. Instances with the same folder control the same broker.

    The broker is running if its pid file is locked: the Java process inherits the lock, and the operating system
    releases it however the process ends, so a stale pid is never mistaken for the broker's.

    Args:
        data: folder for the broker's data, log and pid file; created on start.
        port: port on 127.0.0.1; 0: the port last used in this folder, or else `usual`.
        usual: default port; if it is taken, or 0, a free port.
    """

    def __init__(self, data: Path, port: int = 0, usual: int = 0) -> None:
        self.data = data.absolute()
        self.port = port
        self.usual = usual
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str | None:
        """Return the address for clients, `host:port`, or None if the broker is not running."""
        return f"127.0.0.1:{self._ports()['port']}" if self.pid is not None else None

    @property
    def pid(self) -> int | None:
        """Return the process id, or None if the broker is not running."""
        try:
            with self._pid_file.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    def start(self) -> str:
        """Start the broker unless it is running, wait until it answers, and return its address.

        Raises:
            BrokerError: Java or Maven is missing, the port is taken, the broker is already running at another port, or
                it stopped or did not answer.
        """
        if running := self.servers:
            if self.port and self.port != self._ports()["port"]:
                raise BrokerError(
                    f"Kafka is running at {running}: run `backchannel broker stop` first to use port {self.port}"
                )
            return running
        java = _program("java", "a Java runtime, 17 or newer")
        self.data.mkdir(parents=True, exist_ok=True)
        command = [java, *JVM_OPTIONS, "-cp", self._class_path()]
        ports = self._choose_ports()
        properties = self.data / "server.properties"
        properties.write_text(PROPERTIES.format(data=self.data, **ports))
        if not (self.data / "log" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            _run([*command, "kafka.tools.StorageTool", "format", "-c", str(properties), f"--cluster-id={cluster}"])
        with self._pid_file.open("a") as lock, self._log_file.open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BrokerError(f"another process is starting the broker in {self.data}: try again") from None
            lock.truncate(0)
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                # A Ctrl-C in the caller's terminal must not reach the broker.
                start_new_session=True,
            )
            lock.write(str(self._process.pid))
            lock.flush()
        address = f"127.0.0.1:{ports['port']}"
        self._wait_until_it_answers(address)
        return address

    def stop(self) -> None:
        """Shut the broker down cleanly, and wait until it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the broker, as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Suspend the process: connections stay open, but nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused broker."""
        self._signal(signal.SIGCONT)

    def status(self) -> dict[str, Any]:
        """Return whether the broker is running, its address, pid and folder."""
        pid = self.pid
        return {
            "running": pid is not None,
            "servers": self.servers if pid is not None else None,
            "pid": pid,
            "data": str(self.data),
        }

    @property
    def _pid_file(self) -> Path:
        return self.data / "broker.pid"

    @property
    def _log_file(self) -> Path:
        return self.data / "broker.log"

    def _ports(self) -> dict[str, int]:
        try:
            ports: dict[str, int] = json.loads((self.data / "ports.json").read_bytes())
        except FileNotFoundError:
            return {"port": 0, "controller_port": 0}
        return ports

    def _choose_ports(self) -> dict[str, int]:
        # Clients expect a restarted broker at its old address.
        last = self._ports()
        ports = {
            "port": _bindable(self.port or last["port"] or self.usual, required=bool(self.port)),
            "controller_port": _bindable(last["controller_port"]),
        }
        (self.data / "ports.json").write_text(json.dumps(ports))
        return ports

    def _class_path(self) -> str:
        """Return the class path of the jars; Maven fetches them once for each version of the pom."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backchannel" / "kafka-jars.json"
        cache.parent.mkdir(parents=True, exist_ok=True)
        pom = POM.read_text()
        if cache.exists():
            cached = json.loads(cache.read_bytes())
            if cached["pom"] == pom and all(map(os.path.exists, cached["jars"])):
                return os.pathsep.join(cached["jars"])
        maven = _program("mvn", "Apache Maven, which fetches the broker's jars")
        output = self.data / "classpath.txt"
        goal = "org.apache.maven.plugins:maven-dependency-plugin:build-classpath"
        _run([maven, "-q", "-B", "-f", str(POM), goal, f"-Dmdep.outputFile={output}"])
        jars = output.read_text().strip().split(os.pathsep)
        cache.write_text(json.dumps({"pom": pom, "jars": jars}))
        return os.pathsep.join(jars)

    def _wait_until_it_answers(self, address: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(
                    f"the broker stopped during start-up; the end of {self._log_file}:\n{self._log_tail()}"
                )
            if _answers(address):
                return
            time.sleep(0.1)
        self.kill()
        raise BrokerError(f"the broker did not answer within {START_TIMEOUT:.0f} s; see {self._log_file}")

    def _log_tail(self) -> str:
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-15:])

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(signal.SIGCONT)
        self._signal(number)
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.pid is not None:
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(0.05)
        if self._process is not None:
            self._process.wait()
            self._process = None


def _program(name: str, what: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise BrokerError(
            f"`{name}` is not installed: install {what}, or set {SERVERS_VARIABLE} to the host:port of a broker, "
            "or start one with `docker compose up`"
        )
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BrokerError(f"`{Path(command[0]).name}` failed with exit code {done.returncode}:\n{tail}")


def _bindable(port: int, *, required: bool = False) -> int:
    """Return `port`, or a free port if it is 0, or taken and not `required`."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            if required:
                raise BrokerError(f"port {port} is taken: set another --port, or omit it to use a free one") from None
            probe.bind(("127.0.0.1", 0))
        taken: int = probe.getsockname()[1]
        return taken


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        with KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=1000, request_timeout_ms=2000) as admin:
            admin.list_topics()
    except (OSError, KafkaError):
        return False
    return True


data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA,
    help="Folder for the broker's data, log and pid file.  [default: ~/.local/share/backchannel/kafka]",
)


@click.group(cls=Group)
def broker() -> None:
    """Run Apache Kafka on this machine, for development and tests."""


@broker.command()
@data_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port on 127.0.0.1.  [default: the last one used, or 9092, or, if that is taken, a free one]",
)
def start(data: Path, port: int | None) -> None:
    """Start the broker and wait until it answers."""
    address = Broker(data, port or 0, USUAL_PORT).start()
    click.echo(f"Kafka is running at {address}. To use it: export {SERVERS_VARIABLE}={address}")


@broker.command()
@data_option
def stop(data: Path) -> None:
    """Stop the broker; its data are kept."""
    local = Broker(data)
    was_running = local.pid is not None
    local.stop()
    click.echo("stopped" if was_running else "was not running")


@broker.command()
@data_option
@json_option
def status(data: Path, as_json: bool) -> None:
    """Report whether the broker is running, and where."""
    found = Broker(data).status()
    if as_json:
        print_json(found)
    elif found["running"]:
        click.echo(f"running at {found['servers']}, pid {found['pid']}, data in {found['data']}")
    else:
        click.echo(f"not running, data in {found['data']}")
