"""Reports as one HTML file that needs nothing else, for light and dark, for desktops and phones."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package."""
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
