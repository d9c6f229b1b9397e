"""Runs a script in which its engine is open: `python -m rayml.engines script.py`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from rayml import _ray
from rayml.engines.led import open_given
from rayml.ranks import RankFailed


def main() -> None:
    """Run the script that the command line names as `python` would."""
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    _ray.connect(None)
    try:
        with open_given():
            runpy.run_path(sys.argv[0], run_name="__main__")
    except RankFailed as exc:
        sys.stderr.write(exc.problem.traceback)
        sys.exit(f"rayml: {exc.problem.message}")


if __name__ == "__main__":
    main()
