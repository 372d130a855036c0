"""The demo's report: its findings as a page."""

from backchannel.ops.lab.demo import figures
from backchannel.ops.lab.demo.findings import Findings
from backchannel.ops.lab.worlds.servers import STRATEGIES
from backchannel.ops.reporting import page


def render(findings: Findings) -> str:
    """Return the report as HTML."""
    return page.render("report.html.j2", findings=findings, figures=figures.draw(findings), strategies=STRATEGIES)
