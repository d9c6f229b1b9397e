"""How far a computation is, as whoever watches its run is told."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TELL_S = 1.0


@contextmanager
def told(look: Callable[[], str], tell: Callable[[str], None]) -> Iterator[None]:
    """During the block, tell about once a second what has changed, and nothing when it is over.

    By a thread of its own: what a last task holds up is told too, with no task done meanwhile.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(look, tell, over), name="rayml-dask")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(look: Callable[[], str], tell: Callable[[str], None], over: threading.Event) -> None:
    said = ""
    while not over.wait(_TELL_S):
        if (text := look()) != said:
            tell(said := text)
    if said:
        tell("")
