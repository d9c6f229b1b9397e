"""`python -m rayml.cli` is `rayml`."""

from __future__ import annotations

import sys

from rayml.cli import main

if __name__ == "__main__":
    sys.exit(main())
