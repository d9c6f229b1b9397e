"""Tables in Ray's object store as Ray datasets, without a CPU to spare.

Ray Data starts its tasks outside of the placement group that it is called in, where a job that
holds all CPUs has none. What is used here starts none that asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
import ray.data
from ray.data._internal import remote_fn
from ray.data._internal.util import get_table_block_metadata_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.data import Dataset


def dataset_of(tables: Sequence[Any]) -> Dataset:
    """Return Arrow tables that are in the object store as a dataset; they stay where they are."""
    count_without_cpus()
    return ray.data.from_arrow_refs(list(tables))


def count_without_cpus() -> None:
    """Let Ray Data count the rows of a block without a CPU for it, in this process."""
    count = ray.remote(num_cpus=0, max_retries=-1)(get_table_block_metadata_schema)
    key = get_table_block_metadata_schema, hash(remote_fn._make_hashable({}))
    remote_fn.CACHED_FUNCTIONS[key] = count
