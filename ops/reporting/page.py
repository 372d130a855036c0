"""Reports as one self-contained HTML file, for light and dark mode, for desktops and phones."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return the page made from a template of this package and `values`."""
    environment = Environment(
        loader=PackageLoader("backchannel.ops.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=0: f"{100 * share:.{digits}f}%"
    environment.filters["number"] = lambda value: f"{value:.5f}"
    return environment.get_template(template).render(**values)
