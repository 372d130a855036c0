"""The report of an evaluation: a page. A figure's docstring is its label in the page."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backchannel.ops.evaluate.result import Evaluation
from backchannel.ops.reporting import page
from backchannel.ops.reporting.drawing import TOKENS, draw, panels
from backchannel.schemas.snapshot import Estimate


def render(found: Evaluation) -> str:
    """Return the report as HTML."""
    return page.render("evaluation.html.j2", found=found, figures=draw((values, weights), found))


def values(found: Evaluation, width: float) -> Figure:
    """Estimates of each policy's value with intervals, and the value of the logged policy."""
    rows = sum(len(policy.estimates) + 1 for policy in found.policies)
    figure, (axes,) = panels(width, 1, 0.9 + 0.27 * rows)
    axes.axvspan(found.logged.low, found.logged.high, color=TOKENS["best"], alpha=0.15, linewidth=0)
    axes.axvline(found.logged.value, color=TOKENS["best"], linewidth=1.5)
    labels: dict[float, str] = {}
    row = 0.0
    for policy in found.policies:
        axes.text(0, row, policy.name, transform=axes.get_yaxis_transform(), weight="bold", va="center")
        row += 1
        color = TOKENS["wrong" if policy.faults else "learned"]
        for name, estimate in policy.estimates.items():
            _whisker(axes, row, estimate, color)
            labels[row] = name
            row += 1
    axes.set_yticks(list(labels), labels.values(), color=TOKENS["ink"])
    axes.set_ylim(row - 0.3, -0.7)
    axes.grid(axis="x")
    axes.set_xlabel("reward per turn; the line is the logged policy")
    return figure


def weights(found: Evaluation, width: float) -> Figure:
    """Effective sample size of each policy, as a share of the turns, sessions or users."""
    figure, (axes,) = panels(width, 1, 0.8 + 0.35 * len(found.policies))
    for row, policy in enumerate(found.policies):
        told = policy.relied
        share = told.effective / max(told.turns, 1)
        axes.barh(row, share, 0.6, color=TOKENS["wrong" if policy.faults else "learned"])
        axes.annotate(
            f"{told.effective:,.0f} of {told.turns:,}", (share, row), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(found.policies)), [policy.name for policy in found.policies], color=TOKENS["ink"])
    axes.set_ylim(len(found.policies) - 0.4, -0.6)
    axes.set_xlim(0, 1.15)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}%")
    axes.set_xlabel(f"effective sample size, of the {found.options.horizon}s in the log")
    axes.grid(axis="x")
    return figure


def _whisker(axes: Axes, row: float, estimate: Estimate, color: str) -> None:
    axes.plot([estimate.low, estimate.high], [row, row], color=color, linewidth=2)
    axes.scatter([estimate.value], [row], color=color, s=36, zorder=3, linewidth=0)
