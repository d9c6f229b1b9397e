"""Where reusable functions come from: folders of them, read, checked, found and brought here.

A hub is a folder of hub functions: the one that comes with rayml, and others that the project
names. `folder` reads one function's folder without running any of it, `sources` brings a hub to
this machine, `catalog` finds functions by name, version and digest, `package` imports one,
`publishing` makes, checks and publishes one.
"""

from __future__ import annotations

from rayml.hubs.catalog import find_function, is_hub_name, list_functions, search_functions
from rayml.hubs.folder import HubFunction

__all__ = [
    "HubFunction",
    "find_function",
    "is_hub_name",
    "list_functions",
    "search_functions",
]
