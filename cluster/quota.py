"""What pods take of a namespace's ResourceQuotas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from rayml.cluster.quantity import cpu_quantity, memory_quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Object = Mapping[str, Any]

# KubeRay's init container, which waits for the head, requests this much: a pod is never smaller.
_WAITING = {"cpu": "200m", "memory": "256Mi"}
_WAITER = {"resources": {"requests": _WAITING, "limits": _WAITING}}


class Amounts(NamedTuple):
    """What a pod requests, and up to what it may go, by the resource's name."""

    requests: Mapping[str, float]
    limits: Mapping[str, float]


NOTHING = Amounts({}, {})


class Line(NamedTuple):
    """One resource of a quota: how much there may be of it, and is; None if nobody has counted."""

    quota: str
    resource: str
    hard: float
    used: float | None

    def is_below(self, amount: float) -> bool:
        """Tell whether an amount is more than there may be; sums of fractions are not exact."""
        return amount > self.hard * (1 + 1e-9)


def amounts_of(spec: Object) -> Amounts:
    """Return what a pod takes, as Kubernetes counts it.

    >>> amounts_of({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}).requests
    {'cpu': 2.0}
    """
    return Amounts(_total(spec, "requests"), _total(spec, "limits"))


def amounts_planned(template: Object) -> Amounts:
    """Return what a pod that KubeRay makes of a template will take."""
    spec = template["spec"]
    return amounts_of({**spec, "initContainers": [*(spec.get("initContainers") or ()), _WAITER]})


def _total(spec: Object, field: str) -> dict[str, float]:
    total: dict[str, float] = {}
    first = spec.get("initContainers") or ()
    lasting = [container for container in first if container.get("restartPolicy") == "Always"]
    for name, amount in _given([*spec["containers"], *lasting], field):
        total[name] = total.get(name, 0.0) + amount
    for name, amount in _given(first, field):
        total[name] = max(total.get(name, 0.0), amount)
    return total


def _given(containers: Iterable[Object], field: str) -> Iterator[tuple[str, float]]:
    for container in containers:
        resources = container.get("resources") or {}
        given = resources.get(field) or {}
        if field == "requests":  # who gives a limit alone requests as much
            given = {**(resources.get("limits") or {}), **given}
        for name, text in given.items():
            yield name, parse_quantity(text)


def lines(quotas: Iterable[Object]) -> Iterator[Line]:
    """Return the lines of the quotas that surely concern workers."""
    for quota in quotas:
        spec, used = quota.get("spec", {}), (quota.get("status") or {}).get("used") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        for name, text in (spec.get("hard") or {}).items():
            yield Line(
                quota=quota["metadata"]["name"],
                resource=name,
                hard=parse_quantity(text),
                used=parse_quantity(used[name]) if name in used else None,
            )


def counted(resource: str, amounts: Amounts) -> float:
    """Return what a pod takes of a quota's resource.

    >>> counted("limits.cpu", Amounts({"cpu": 1}, {"cpu": 2})), counted("pods", Amounts({}, {}))
    (2, 1.0)
    """
    if resource in {"pods", "count/pods"}:
        return 1.0
    kind, dot, name = resource.partition(".")
    if dot and kind == "limits":
        return amounts.limits.get(name, 0.0)
    if dot and kind == "requests":
        return amounts.requests.get(name, 0.0)
    return amounts.requests.get(resource, 0.0) if resource in {"cpu", "memory"} else 0.0


def show(resource: str, amount: float) -> str:
    """Return an amount of a resource as people write it.

    >>> show("requests.memory", 2**30), show("cpu", 0.5), show("pods", 3.0)
    ('1Gi', '500m', '3')
    """
    if "memory" in resource:
        return memory_quantity(math.ceil(amount))
    return cpu_quantity(amount) if "cpu" in resource else f"{amount:g}"
