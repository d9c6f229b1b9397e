"""Runs a script whose engine wants something of its process, as `rayml.launch` runs others."""

from __future__ import annotations

from rayml import launch
from rayml.engines.scripts import opened

if __name__ == "__main__":
    launch.main(opened())
