"""The seeds that code sets are parameters of its run, and the generators are as they would be."""

from __future__ import annotations

import inspect
import os
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest

import rayml
from rayml import autologging

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("autolog")


def seeds(track: Any, function: Callable[[], object]) -> dict[str, object]:
    """Return what a run of a function has recorded of seeds."""
    found = track(function).params
    return {name: value for name, value in found.items() if name != "seed/PYTHONHASHSEED"}


def test_the_seeds_of_python_and_numpy(track: Any) -> None:
    def train() -> None:
        random.seed(1)
        np.random.seed(seed=2)  # noqa: NPY002
        np.random.default_rng([3, 4])

    assert seeds(track, train) == {"seed/random": 1, "seed/numpy": 2, "seed/default_rng": [3, 4]}


def test_what_rayml_draws_itself_is_none(track: Any) -> None:
    def train() -> None:
        rayml.context().log_dataset("rows", pa.table({"x": range(100_000)}))

    assert seeds(track, train) == {}


def test_of_many_seeds_the_first_and_the_last(track: Any) -> None:
    def train() -> None:
        for seed in (5, 6, 7):
            random.seed(seed)
        for seed in (8, 9, 8):
            np.random.seed(seed)  # noqa: NPY002

    assert seeds(track, train) == {"seed/random": 5, "seed/random/last": 7, "seed/numpy": 8}


@pytest.mark.parametrize(
    ("seed", "shown"), [("text", "text"), (b"\x01\xff", "01ff"), (2**70, str(2**70)), (0.5, 0.5)]
)
def test_whatever_a_seed_is_it_can_be_read(track: Any, seed: Any, shown: object) -> None:
    assert seeds(track, lambda: random.seed(seed)) == {"seed/random": shown}
    assert seeds(track, lambda: np.random.default_rng(np.int64(5))) == {"seed/default_rng": 5}


def test_chance_is_no_seed(track: Any) -> None:
    def train() -> None:
        random.seed()
        random.seed(None)
        np.random.seed()  # noqa: NPY002
        np.random.default_rng(np.random.default_rng())
        with pytest.raises(TypeError):
            np.random.seed(random)  # type: ignore[arg-type]  # noqa: NPY002

    assert seeds(track, train) == {}


def test_packages_that_draw_for_themselves_do_not_count(track: Any) -> None:
    code = compile("default_rng(0)", "/env/site-packages/some/module.py", "exec")

    def train() -> None:
        exec(code, {"default_rng": np.random.default_rng})  # noqa: S102
        np.random.default_rng(1)

    assert seeds(track, train) == {"seed/default_rng": 1}


def test_pytorch_and_what_seeds_several(track: Any) -> None:
    torch = pytest.importorskip("torch")
    lightning = pytest.importorskip("lightning")
    assert seeds(track, lambda: torch.random.manual_seed(3)) == {"seed/torch": 3}
    several = {"seed/random": 4, "seed/numpy": 4, "seed/torch": 4}
    assert seeds(track, lambda: lightning.seed_everything(4, verbose=False)) == several


def test_the_numbers_are_what_they_would_be_without_it(track: Any) -> None:
    def draw() -> list[float]:
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002
        own = np.random.default_rng(3)
        return [random.random(), np.random.random(), own.random()]  # noqa: NPY002

    drawn: list[list[float]] = []
    track(lambda: drawn.append(draw()))
    autologging.stop()
    assert drawn == [draw()]


def test_outside_of_a_run_and_after_the_end_nothing_is_noted(track: Any) -> None:
    kept = random.seed
    random.seed(1)
    assert seeds(track, lambda: None) == {}
    autologging.stop()
    assert random.seed is not kept
    assert seeds(track, lambda: kept(2)) == {}


def test_everything_is_undone() -> None:
    autologging.stop()
    before = random.seed, np.random.seed, np.random.default_rng
    rayml.autolog("sklearn")
    rayml.autolog()
    assert inspect.signature(random.seed) == inspect.signature(before[0])
    assert random.seed != before[0]
    autologging.stop()
    assert (random.seed, np.random.seed, np.random.default_rng) == before


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_what_is_pickled_needs_no_rayml(pickler: Any) -> None:
    for function in (random.seed, np.random.seed, np.random.default_rng):
        assert b"rayml" not in pickler.dumps(function)
        assert pickle.loads(pickler.dumps(function)) is function


def test_runs_beside_each_other_have_their_own(tmp_path: Path) -> None:
    begun = threading.Barrier(4)

    def train(number: int) -> str:
        with rayml.start_run(store=tmp_path) as context:
            begun.wait()
            for seed in range(100):
                random.seed(1000 * number + seed)
            begun.wait()
        return context.run_id

    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(train, range(1, 5)))
    for number, run in enumerate(ids, 1):
        found = rayml.get_run(run, store=tmp_path).params
        assert (found["seed/random"], found["seed/random/last"]) == (
            1000 * number,
            1000 * number + 99,
        )


def test_a_thread_s_seeds_are_those_of_the_run_it_is_in(track: Any) -> None:
    def train() -> None:
        random.seed(1)
        thread = threading.Thread(target=random.seed, args=(2,))
        thread.start()
        thread.join()

    assert seeds(track, train) == {"seed/random": 1, "seed/random/last": 2}


def test_a_fork_s_seeds_are_its_own(track: Any) -> None:
    def train() -> None:
        random.seed(1)
        if os.fork() == 0:
            random.seed(2)
            os._exit(0)
        os.wait()

    assert seeds(track, train) == {"seed/random": 1}


def test_numpy_that_is_imported_later_and_the_seed_of_hashes(tmp_path: Path) -> None:
    code = (
        "import sys, rayml\n"
        "rayml.autolog()\n"
        "assert 'numpy' not in sys.modules\n"
        f"with rayml.start_run(store={str(tmp_path)!r}):\n"
        "    import numpy\n"
        "    numpy.random.seed(3)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    found = rayml.get_run("latest", store=tmp_path).params
    assert found == {"seed/PYTHONHASHSEED": "7", "seed/numpy": 3}
