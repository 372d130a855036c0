"""The demo's findings as a page."""

from backchannel.ops import figures, page
from backchannel.ops.findings import Findings
from backchannel.ops.servers import STRATEGIES


def render(findings: Findings) -> str:
    """Return the report as HTML."""
    return page.render("report.html.j2", findings=findings, figures=figures.draw(findings), strategies=STRATEGIES)
