"""What the other columns say of a target, and whether one of them is the target in disguise."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import rayml

from ._pairs import label

if TYPE_CHECKING:
    from ._profile import Column, Profile
    from ._relations import Relations

CLASSIFICATION, REGRESSION = "classification", "regression"
_FEW = 20  # different whole numbers that are taken for classes
_CLASSES = 32
LEAK = 0.95  # explained by one column alone
LEAK_CORRELATION = 0.99
LEAK_ABSENCE = 0.5  # explained by nothing but whether there is a value


@dataclass(frozen=True)
class Target:
    """The column that is to be predicted.

    Attributes:
        name: Its name.
        task: `"classification"` or `"regression"`.
        column: What it holds.
        classes: Of each class: `class`, `rows`, `share`, and the `weight` that balances it.
        relations: Of each other column: `column`, `measure`, `value`, `explained`,
            `explained_by_absence` and `leak`, which says why, or nothing; the strongest first.
    """

    name: str
    task: str
    column: Column
    classes: list[dict[str, Any]]
    relations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_constant(self) -> bool:
        """There is nothing to predict."""
        return self.column.distinct < 2

    @property
    def leaks(self) -> list[dict[str, Any]]:
        """The relations that are too good to be true."""
        return [one for one in self.relations if one["leak"]]


def find_target(found: Profile, name: str, task: str | None) -> Target:
    """Return the target before anything is known of its relations.

    Raises:
        rayml.SpecError: There is no such column, or it is no target of that task.
    """
    if name not in found.columns:
        near = get_close_matches(name, found.columns, 1) or list(found.columns)[:5]
        raise rayml.SpecError(
            f"the table has no column {name!r} as target; is it {', '.join(near)}?"
        )
    column = found.columns[name]
    if column.kind not in ("number", "text", "boolean", "empty"):
        raise rayml.SpecError(
            f"target {name!r} is {column.type}; give a column of numbers or of classes"
        )
    chosen = task or _task_of(column)
    if chosen == REGRESSION and column.kind in ("text", "boolean"):
        raise rayml.SpecError(
            f"target {name!r} is {column.type}, which is no number; give task='classification'"
        )
    if chosen == CLASSIFICATION and column.kind == "number" and column.distinct > _CLASSES:
        raise rayml.SpecError(
            f"target {name!r} has {column.distinct:,} different numbers and classes are at most "
            f"{_CLASSES} of them; give task='regression'"
        )
    classes = _classes(column) if chosen == CLASSIFICATION else []
    return Target(name, chosen, column, classes)


def _task_of(column: Column) -> str:
    if column.kind != "number" or column.spread is None:
        return CLASSIFICATION
    is_whole = (column.spread.numbers % 1 == 0).all()
    return CLASSIFICATION if column.distinct <= _FEW and is_whole else REGRESSION


def _classes(column: Column) -> list[dict[str, Any]]:
    if column.spread is not None:
        counts = {label(v, column.kind): n for v, n in column.spread.most(_CLASSES)}
    elif column.counts is not None:
        counts = {str(v): int(n) for v, n in column.counts.counts.items()}
    else:
        return []
    return [
        {
            "class": name,
            "rows": rows,
            "share": rows / column.present,
            "weight": column.present / (column.distinct * rows),
        }
        for name, rows in counts.items()
    ]


def relate_target(target: Target, relations: Relations) -> Target:
    """Return the target with what each column that has levels says of it."""
    names = [name for name in relations.plan.levels if name != target.name]
    if target.name not in relations.plan.levels:
        return target
    found = [_relation(name, target, relations) for name in names]
    found.sort(key=lambda one: -one["explained"])
    return Target(target.name, target.task, target.column, target.classes, found)


def _relation(name: str, target: Target, relations: Relations) -> dict[str, Any]:
    relation = relations.relation(name, target.name)
    explained = relations.explained(name, target.name)
    by_absence = relations.explained_by_absence(name, target.name)
    leak = ""
    if by_absence >= LEAK_ABSENCE:
        leak = f"whether it has a value explains {by_absence:.0%} of the target"
    if explained >= LEAK:
        leak = f"it explains {explained:.0%} of the target alone"
    elif relation.measure == "spearman":
        pearson = relations.pearson_of(name, target.name)
        if max(abs(relation.value or 0), abs(pearson or 0)) >= LEAK_CORRELATION:
            leak = f"its correlation with the target is {pearson or relation.value:.3f}"
    return {
        "column": name,
        "measure": relation.measure,
        "value": relation.value,
        "explained": explained,
        "explained_by_absence": by_absence,
        "leak": leak,
    }
