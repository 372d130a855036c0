"""The image, built and run as docker/compose.yaml says, with a real broker and PostgreSQL. `make images` runs it.

The base image is Debian's Python instead of the official one, and containers share a network, so one worker runs.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from sqlalchemy import create_engine, make_url

from backchannel.ops.local.broker import Broker
from tests.support.containers import Buildah, Container, own_network
from tests.support.servers import start_postgres

pytestmark = pytest.mark.images

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
BASE: Final = "docker.io/library/python:3.11-slim-bookworm"
IMAGE: Final = "localhost/backchannel"
USER: Final = 10001
TRUSTED: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""This machine's way to packages, while the image is built."""


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Return buildah with the image."""
    if missing := [name for name in ("buildah", "debootstrap", "ip", "make") if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install buildah debootstrap iproute2 make")
    if os.geteuid():
        pytest.skip("debootstrap and the network need root")
    made = Buildah(tmp_path_factory.mktemp("images"))
    try:
        made.debian("bookworm", ("python3", "python3-venv", "ca-certificates"), BASE)
        trusted = [f"--volume={path}:{path}:ro" for path in TRUSTED if Path(path).exists()]
        build = ["bud", "--isolation=chroot", "--format=docker", "--pull-never", *trusted]
        made(*build, f"--file={ROOT / 'docker' / 'Dockerfile'}", f"--tag={IMAGE}", str(ROOT))
        yield made
    finally:
        made.close()


def test_the_image_runs_as_compose_says(buildah: Buildah, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docker").mkdir()
    subprocess.run(["make", "-s", "-f", ROOT / "Makefile", "-C", tmp_path, "docker/.env"], check=True)
    secrets = dict(line.split("=") for line in (tmp_path / "docker" / ".env").read_text().splitlines())
    with own_network(), ExitStack() as stack:
        broker = Broker(tmp_path / "kafka", port=9092)
        broker.start()
        stack.callback(broker.stop)
        postgres = make_url(stack.enter_context(start_postgres()).url)
        engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE backchannel")
        engine.dispose()

        def start(name: str) -> Container:
            environment = {
                key: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: secrets[found[1]], value)
                for key, value in SERVICES[name]["environment"].items()
            }
            store = environment["BACKCHANNEL_STORE"].replace("@postgres/", f"@postgres:{postgres.port}/")
            environment["BACKCHANNEL_STORE"] = store
            log = tmp_path / f"{name}.log"
            hosts = ("kafka", "postgres")
            started = Container(buildah, IMAGE, SERVICES[name], environment=environment, hosts=hosts, log=log)
            stack.callback(started.kill)
            return started

        topics = start("topics")
        assert topics.wait() == 0, topics.log.read_text()
        running = {name: start(name) for name in ("worker", "serve", "dashboard")}
        for container in running.values():
            eventually(container.healthy)

        token = {"Authorization": f"Bearer {secrets['BACKCHANNEL_TOKENS']}"}
        with httpx.Client(base_url="http://127.0.0.1:8766", headers=token, timeout=30.0) as client:
            assert client.get("/v1/policy", headers={"Authorization": "Bearer wrong"}).status_code == 401
            learn(client)
            decided = client.post("/v1/decide", json={"text": "play hey jude", "session_id": "s", "budget": 4}).json()
            assert decided["policy_version"]
            assert decided["recalled"][0]["entity_id"] == "song/42"
        token = {"Authorization": f"Bearer {secrets['BACKCHANNEL_DASHBOARD_TOKEN']}"}
        assert httpx.get("http://127.0.0.1:8765/", headers=token, timeout=30.0).status_code == 200
        assert httpx.get("http://127.0.0.1:8765/", timeout=30.0).status_code == 401
        assert "backchannel_turns_total" in httpx.get("http://127.0.0.1:9464/metrics", timeout=30.0).text

        for name, container in running.items():
            assert container.owned(USER) == [], "the root is read-only"
            assert container.stop() == 0, f"{name}: {container.log.read_text()}"
    with capsys.disabled():
        print("\n" + buildah("images", "--format={{.Name}}:{{.Tag}} {{.Size}}"))


def learn(client: httpx.Client) -> None:
    """Send turns that have ended, and in the same sessions turns that close them; wait until they are in the policy."""
    now = int(time.time() * 1000)
    for number in range(40):
        ts = now - 600_000 if number < 30 else now
        ids = {"session_id": f"s{number % 10}", "query_id": f"q{number}"}
        shown = {"entity_id": "song/42", "position": 1, "strategies": ["lexical"]}
        asked = {"type": "query", "text": "play hey jude", "ts": ts, **ids}
        seen = {"type": "impression", "results": [shown], "allocation": {"lexical": 5}, "ts": ts + 1, **ids}
        clicked = {"type": "click", "event_id": f"c{number}", "entity_id": "song/42", "ts": ts + 2, **ids}
        sent = client.post("/v1/events", json=[asked, seen, clicked])
        assert sent.status_code == 202, sent.text
    eventually(lambda: bool(client.get("/v1/recall", params={"text": "play hey jude"}).json()["recalled"]))


def eventually(happens: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.5)
