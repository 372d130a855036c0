"""Types of options that are numbers."""

from math import isfinite
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A finite number within bounds: click takes `nan`, which no bound excludes, and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
