"""What does it cost to log a folder of many files, beside the store client's own upload?

1,000 files of 1 MiB (`--full`: 10,000) go to a folder and to a real S3 server on this machine: by
`log_artifact`, and by obstore alone with as many threads. obstore makes no digests, and in a
folder it never calls fsync; the baseline that counts there does. Then the same folder is logged
again.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import LocalStore, from_url

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from timing import Figure, compare, report, scratch, seconds, take_turns  # noqa: E402

import rayml  # noqa: E402
from rayml.store import open_store  # noqa: E402
from tests.s3 import BUCKET, s3_server  # noqa: E402

if TYPE_CHECKING:
    from obstore.store import ObjectStore

QUESTION = "What does a folder of many files cost, beside the store client's own upload?"
FILE_BYTES = 1024 * 1024
THREADS = 8
SETTLE_S = 2.5  # rayml trusts no file that was written just now


def make_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:05}.bin" for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(FILE_BYTES))
    os.sync()
    time.sleep(SETTLE_S)
    return paths


def upload(target: ObjectStore, paths: list[Path], root: Path | None = None) -> float:
    """Return seconds of obstore's own upload; with `root`, each file is synced to disk there."""

    def put(path: Path) -> None:
        obstore.put(target, f"files/{path.name}", path)
        if root:
            with (root / "files" / path.name).open("rb") as file:
                os.fsync(file.fileno())

    def put_all() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, paths))

    taken = seconds(put_all)
    for path in paths:
        obstore.delete(target, f"files/{path.name}")
    return taken


def log(store: str, source: Path, again: list[float]) -> float:
    """Return seconds of the first `log_artifact`; those of a second one are added to `again`."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    with rayml.start_run(store=store) as context:
        first = seconds(lambda: context.log_artifact("folder", source))
    with rayml.start_run(store=store) as context:
        again.append(seconds(lambda: context.log_artifact("folder", source)))
    blobs = open_store(store)
    for key in blobs.list("blobs/"):
        blobs.delete(key)
    return first


def compare_folder(paths: list[Path], scratched: Path, rounds: int, size: str) -> list[Figure]:
    local = scratched / "obstore"
    target = LocalStore(local, mkdir=True)
    plain, synced, ours = take_turns(
        partial(upload, target, paths),
        partial(upload, target, paths, local),
        partial(log, str(scratched / "store"), paths[0].parent, again := list[float]()),
        n=rounds,
    )
    return [
        compare(f"{size} to a folder / obstore and fsync", synced, ours, "speed", limit=0.8),
        compare(f"{size} to a folder / obstore", plain, ours, "speed", limit=None),
        compare(
            f"the same again / the first time, {size}, folder", ours, again[-rounds:], limit=0.05
        ),
    ]


def compare_bucket(paths: list[Path], scratched: Path, rounds: int, size: str) -> list[Figure]:
    with s3_server(scratched) as variables:
        os.environ.update(variables)
        target = from_url(f"s3://{BUCKET}/obstore", client_options={"allow_http": True})
        plain, ours = take_turns(
            partial(upload, target, paths),
            partial(log, f"s3://{BUCKET}/store", paths[0].parent, again := list[float]()),
            n=rounds,
        )
    return [
        compare(f"{size} to S3 / obstore", plain, ours, "speed", limit=0.8),
        compare(f"the same again / the first, {size}, S3", ours, again[-rounds:], limit=0.05),
    ]


def main() -> None:
    is_full = "--full" in sys.argv
    count, folder_rounds, bucket_rounds = (10_000, 3, 1) if is_full else (1_000, 5, 5)
    size = f"{count:,} files of 1 MiB"
    with scratch() as folder:
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        paths = make_files(folder / "source", count)
        figures = [
            *compare_folder(paths, folder, folder_rounds, size),
            *compare_bucket(paths, folder, bucket_rounds, size),
        ]
    report(QUESTION, figures, threads=THREADS)


if __name__ == "__main__":
    main()
