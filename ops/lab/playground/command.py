"""`backchannel playground`: search a catalogue by hand."""

from contextlib import closing
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from backchannel.ops.lab.playground.server import application
from backchannel.ops.lab.playground.session import Playground
from backchannel.ops.lab.search.build import engine, popularity
from backchannel.ops.lab.search.command import GENERATED, open_catalogue
from backchannel.ops.lab.search.encoders import find_encoder
from backchannel.ops.lab.search.options import dense_option
from backchannel.ops.options import host_option, port_option, seed_option
from backchannel.ops.web.addresses import check_address
from backchannel.ops.web.guard import is_loopback
from backchannel.ops.web.pages import serve


@click.command()
@click.argument("corpus", default=GENERATED)
@host_option
@port_option(8767)
@seed_option
@dense_option
def playground(*, corpus: str, host: str, port: int, seed: int, dense: bool) -> None:
    """Serve a page on which to search CORPUS, click, and watch the next results change with what is learned.

    CORPUS is a folder with documents, and with judged queries if simulated people are to click; without one, a small
    catalogue is generated. What is learned is forgotten when the command ends.
    """
    if not is_loopback(host):
        raise click.UsageError(f"--host: {host} is not a loopback address; anybody who reaches the page can click")
    check_address(host, port)  # before it takes long
    console = Console(stderr=True)
    encoder = find_encoder(console.print) if dense else None
    opened = open_catalogue(corpus, seed, encoder)
    for line in opened.faults.lines():
        console.print(f"not used: {line}", style="yellow", markup=False)
    with console.status(f"Indexing {len(opened.documents):,} documents"):
        searching = engine(opened, popularity(opened, range(len(opened.queries))), encoder)
    with (
        TemporaryDirectory() as folder,
        closing(Playground(opened, searching, f"sqlite:///{folder}/playground.db", seed)) as played,
    ):
        serve(application(played), host, port, None)
