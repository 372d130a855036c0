"""The documents hold: their commands run, their links lead somewhere, and what is generated is up to date.

A fence that begins with ```sh is run, block by block in the order of the document, in one shell in an empty folder;
```sh kafka runs in tests/integration; ```sh not-run is for the reader only, and the text says why.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backchannel.ops.commands import config, schemas
from backchannel.streams.config import Config

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(document: Path, info: str) -> list[str]:
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(document: Path, info: str, folder: Path, **environment: str) -> None:
    script = "set -euo pipefail\n" + "\n".join(blocks(document, info))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-xc", script],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@every_document
def test_the_commands_run(document: Path, tmp_path: Path) -> None:
    run_blocks(document, "sh", tmp_path)


@every_document
def test_every_block_says_what_it_is(document: Path) -> None:
    known = {
        "sh",
        "sh kafka",
        "sh not-run",
        "json",
        "python",
        "toml",
        "sql",
        "java",
        "go",
        "ts",
        "js",
        "mermaid",
        "text",
        "yaml",
    }
    infos = re.findall(r"^```(.*)\n(?:.*\n)*?```$", document.read_text(), re.MULTILINE)
    assert set(infos) <= known


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    ("name", "wanted"), [("configuration.md", config.reference(Config())), ("events.md", schemas.reference())]
)
def test_the_references_are_those_of_the_code(name: str, wanted: str) -> None:
    assert (ROOT / "docs" / name).read_text() == wanted, f"docs/{name} has drifted from the code: run `make docs`"


def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "site" / "api.html").read_text()
    assert all(f'id="backchannel.{name}"' in api for name in ("PolicyReader", "Policy", "StoreError"))


def test_make_help_leaves_nothing_out() -> None:
    described = re.findall(r"^([^\s:]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split()[1] for line in done.stdout.splitlines()] == described
