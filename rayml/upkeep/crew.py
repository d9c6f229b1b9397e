"""Many slow calls side by side, which end soon when nobody wants their answers any more."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from rayml.store import Store

_LOCAL = 4
_REMOTE = 16

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """Threads that work for one task on a store; `stop` ends it, from any thread.

    What is being worked on when it stops should look at `is_stopped` between two pieces.
    """

    def __init__(self, *stores: Store) -> None:
        self._threads = _LOCAL if all(store.is_local for store in stores) else _REMOTE
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Nobody wants the answers any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let each thread end with the piece that it is working on."""
        self._stopped.set()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the function's answers in order; a few items are under way at once.

        When the caller leaves early, as Ctrl-C makes it do, no further item is begun.
        """
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="rayml-crew")
        rest = iter(items)
        try:
            begun = islice(rest, 2 * self._threads)
            coming: deque[Future[R]] = deque(pool.submit(function, item) for item in begun)
            while coming:
                answer = coming.popleft().result()
                coming += (pool.submit(function, item) for item in islice(rest, 1))
                yield answer
        except BaseException:
            self.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
