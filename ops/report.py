"""The demo's findings as one HTML file that needs nothing else."""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from backchannel.ops import figures
from backchannel.ops.findings import Findings
from backchannel.ops.servers import STRATEGIES


def render(findings: Findings) -> str:
    """Return the report, as HTML for light and dark, for desktops and phones."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share, digits=0: f"{100 * share:.{digits}f}%"
    template = environment.from_string((files("backchannel.ops") / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(findings=findings, figures=figures.draw(findings), strategies=STRATEGIES)
