"""The examples of docs/serving.md run against a service, in each language for which there is a compiler here."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.serve.test_processes import serving
from tests.support.servers import missing

DOCUMENT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
EXAMPLES = {
    "python": ("client.py", [sys.executable, "client.py"]),
    "java": ("Client.java", ["java", "Client.java"]),
    "go": ("main.go", ["go", "run", "main.go"]),
    "ts": ("client.mts", ["node", "--experimental-strip-types", "--no-warnings", "client.mts"]),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service."""
    with serving(tmp_path_factory.mktemp("examples")) as served:
        yield str(served.client.base_url).rstrip("/")
        served.stop()


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_example_runs(language: str, url: str, tmp_path: Path) -> None:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    name, command = EXAMPLES[language]
    if shutil.which(command[0]) is None:
        missing(f"no {command[0]}")
    if language == "ts" and int(subprocess.check_output(["node", "--version"])[1:].split(b".")[0]) < 22:
        pytest.skip("this Node does not read TypeScript")
    (tmp_path / name).write_text(code)
    environment = {**os.environ, "BACKCHANNEL_URL": url}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accepted\W+2", done.stdout)
