"""What may vary: plain JSON, as Optuna's distributions."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

import rayml

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS = ("low", "high", "log", "step")
_PLAIN = (str, int, float, bool, type(None))


class Space:
    """The parameters that vary, each with its values.

    Args:
        given: By name: a list of values, or `low` and `high`, with `log` or a `step`.

    Raises:
        SpecError: It is nothing of that.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        if not isinstance(given, dict) or not given:
            raise rayml.SpecError(
                f"space={given!r} has no parameter; give such as {{'depth': [2, 4, 8]}}"
            )
        self._lists = {name: values for name, values in given.items() if isinstance(values, list)}
        self.distributions = {name: _distribution(name, values) for name, values in given.items()}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a trial's function is given."""
        return {name: self._value(name, one) for name, one in drawn.items()}

    def drawn(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what Optuna knows such values by; None if they are not all of this space.

        What is no parameter of it does not matter.
        """
        if self.distributions.keys() - values.keys():
            return None
        found = {name: self._drawn(name, values[name]) for name in self.distributions}
        try:
            create_trial(params=found, distributions=self.distributions, value=0.0)
        except (TypeError, ValueError):
            return None
        return found

    def _value(self, name: str, one: Any) -> Any:  # noqa: ANN401
        return self._lists[name][one] if self._is_by_place(name) else one

    def _drawn(self, name: str, value: Any) -> Any:  # noqa: ANN401
        if not self._is_by_place(name):
            return value
        return self._lists[name].index(value) if value in self._lists[name] else None

    def _is_by_place(self, name: str) -> bool:
        """Whether Optuna draws places in a list, as its values are none that it takes."""
        return not all(isinstance(value, _PLAIN) for value in self._lists.get(name, ()))


def _distribution(name: str, values: Any) -> BaseDistribution:  # noqa: ANN401
    if isinstance(values, list):
        if not values:
            raise rayml.SpecError(f"space[{name!r}] is an empty list; give values to choose from")
        is_plain = all(isinstance(value, _PLAIN) for value in values)
        return CategoricalDistribution(values if is_plain else range(len(values)))
    if not isinstance(values, dict):
        raise rayml.SpecError(
            f"space[{name!r}] is {values!r}; give a list of values, or low and high. What does "
            "not vary belongs in params"
        )
    return _between(name, values)


def _between(name: str, given: Mapping[str, Any]) -> BaseDistribution:
    for key in given:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            way_out = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(_KEYS)}"
            raise rayml.SpecError(f"space[{name!r}] has {key!r}; {way_out}")
    low: Any = given.get("low")
    high: Any = given.get("high")
    step: Any = given.get("step")
    log = bool(given.get("log"))
    numbers = [low, high] if step is None else [low, high, step]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
        raise rayml.SpecError(
            f"space[{name!r}] goes from {low!r} to {high!r}; low and high are numbers"
        )
    try:
        if all(isinstance(one, int) for one in numbers):
            return IntDistribution(low, high, log=log, step=step or 1)
        return FloatDistribution(float(low), float(high), log=log, step=step)
    except ValueError as exc:
        said = str(exc).rstrip(".")
        raise rayml.SpecError(f"space[{name!r}] cannot be drawn from: {said}; change it") from exc
