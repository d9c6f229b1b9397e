"""Ray's datasets: tasks where the blocks are write their Parquet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rayml.artifacts import dataset
from rayml.errors import RaymlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ray.data import Dataset

    from rayml.artifacts.describe import Description
    from rayml.artifacts.record import ArtifactRecord, FileRecord
    from rayml.store import Store

_SHARE = 4  # of a part's size: of some hundred MiB each machine is to have one


def save_spread(store: Store, name: str, data: Dataset) -> ArtifactRecord:
    """Store a Ray dataset as Parquet; only the parts' descriptions come to this process.

    Its blocks are stored as they come, neighbours together, as many at a time as there are CPUs.
    They ask for none: a job that holds all has to go on. Where other machines could not see the
    store, a folder of this one, the rows come here.

    Raises:
        SpecError: It has no columns, two of one name, or blocks that disagree on a column's type.
    """
    import ray  # noqa: PLC0415 - whoever has a dataset has loaded it

    if store.is_local and sum(node["Alive"] for node in ray.nodes()) > 1:
        return dataset.save_tables(store, name, "dataset", "ray", dataset.ray_tables(data))
    task: Any = ray.remote(num_cpus=0, max_retries=-1)(_store_blocks)
    width = max(2, int(ray.cluster_resources().get("CPU", 0)))
    calls = (partial(task.remote, store, name, *blocks) for blocks in _shares(data))
    empty = partial(_empty, data)
    return dataset.record_parts(store, name, "ray", _in_order(calls, width), empty)


def _shares(data: Dataset) -> Iterator[list[Any]]:
    """Yield the references of neighbouring blocks that are to lie in one file."""
    held: list[Any] = []
    size = 0
    for bundle in data.iter_internal_ref_bundles():
        for block in bundle.blocks:
            if block.metadata.num_rows == 0:
                continue
            held.append(block.ref)
            size += block.metadata.size_bytes or 0
            if size * _SHARE >= dataset.PART_BYTES:
                yield held
                held, size = [], 0
    if held:
        yield held


def _in_order(calls: Iterable[Callable[[], Any]], width: int) -> Iterator[Any]:
    """Yield what tasks return, in the order of their calls, with so many under way."""
    under_way: list[Any] = []
    for call in calls:
        if len(under_way) >= width:
            yield _result(under_way.pop(0))
        under_way.append(call())
    yield from map(_result, under_way)


def _result(reference: Any) -> Any:  # noqa: ANN401
    import ray  # noqa: PLC0415

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as exc:
        if isinstance(exc.cause, RaymlError):  # as if it had been raised here
            raise exc.cause from None
        raise


def _store_blocks(store: Store, name: str, *blocks: Any) -> tuple[Description, list[FileRecord]]:  # noqa: ANN401
    from ray.data.block import BlockAccessor  # noqa: PLC0415

    tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
    return dataset.write_parts(store, name, map(dataset.joined, dataset.gather(tables)))


def _empty(data: Dataset) -> Any:  # noqa: ANN401
    """Return a table of the dataset's columns; it has no rows."""
    return next(dataset.ray_tables(data)).slice(0, 0)
