"""What several learners need of the same turns is worked out once."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from backchannel.agents.outcomes.outcomes import Outcomes

_P = ParamSpec("_P")
_T = TypeVar("_T")


def once(work: Callable[Concatenate[Outcomes, _P], _T]) -> Callable[Concatenate[Outcomes, _P], _T]:
    """Decorate a pure function of outcomes: the first learner that asks for something pays for it.

    The result is kept as long as the outcomes are, so nobody may change it. Arguments must be hashable.
    """

    @wraps(work)
    def found(outcomes: Outcomes, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        key = work, args, tuple(kwargs.items())
        if key not in outcomes.shared:
            outcomes.shared[key] = work(outcomes, *args, **kwargs)
        result: _T = outcomes.shared[key]
        return result

    return found
