"""How long the runs of an experiment are kept: a policy in the store's catalog.

It is carried out by the garbage collection, through the same deletion that people use, with its
time to undo. Runs whose artifacts are versions of a registered model are kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rayml.errors import SpecError
from rayml.store import check_store
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import NO_EDITS, RetentionSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.store import Store
    from rayml.tracker.changes import CatalogState

DAY_S = 86400.0


def set_retention(store: Store, experiment: str, days: float | None) -> None:
    """Have an experiment's runs deleted so many days after their end; None keeps them for ever.

    Raises:
        SpecError: It is not a number of days.
        StoreError: The store cannot be written.
    """
    if days is not None and not (math.isfinite(days) and days >= 0):
        raise SpecError(f"days={days} is no time to keep runs; give a number from 0 up")
    check_store(store)
    change = RetentionSet(experiment=experiment, days=days)
    open_catalog(store).append(
        lambda state: None if state.retention.get(experiment) == days else change
    )


def read_retention(store: Store) -> dict[str, float]:
    """Return after how many days ended runs are deleted, by experiment.

    Raises:
        StoreError: The store cannot be read.
    """
    return dict(open_catalog(store).refresh().retention)


def find_expired(
    state: CatalogState, ended: Mapping[str, tuple[str, float]], now: float
) -> list[str]:
    """Return the runs that are to be deleted by the policy and are not yet.

    Args:
        state: The catalog, which has the policy.
        ended: By run: its experiment, and when it ended, in Unix seconds.
        now: Unix seconds.
    """
    registered = {
        version.artifact.run
        for model in state.models.values()
        for version in model.versions.values()
    }
    return sorted(
        run
        for run, (experiment, ended_at) in ended.items()
        if now - ended_at >= state.retention.get(experiment, math.inf) * DAY_S
        and run not in registered
        and state.runs.get(run, NO_EDITS).deleted_at is None
    )
