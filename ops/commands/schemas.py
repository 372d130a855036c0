"""`backchannel schemas`: the event contracts as JSON Schema and AsyncAPI documents."""

from pathlib import Path

import click
import orjson

from backchannel.schemas.documents import documents


@click.command("schemas")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("schemas/json"),
    show_default=True,
    help="Folder to write to.",
)
def schemas(output: Path) -> None:
    """Write the JSON Schemas of the events and the AsyncAPI document of the topics."""
    output.mkdir(parents=True, exist_ok=True)
    for name, content in rendered().items():
        (output / name).write_bytes(content)
        click.echo(output / name)


def rendered() -> dict[str, bytes]:
    """Return the contents of every document, by file name."""
    return {
        name: orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for name, document in documents().items()
    }
