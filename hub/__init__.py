"""Reusable functions: data preparation, analysis, training and deployment, one folder each.

    rayml.hub.list()                                    which there are
    rayml.hub.search("drift")                           those that have to do with it
    describe = rayml.hub.get("describe")                a plain callable
    describe(table=frame, target="churned")             tracked as a run
    rayml.submit("hub://describe", inputs={...})        the same as a job

Each is a folder with `function.py` (one public function, which uses only rayml's public API),
`hub.toml` (version, category, requirements, resources) and `example.py`; its parameters and its
documentation are its signature and its docstring. Import the package as `rayml.hub`, never as
`hub`.
"""

from __future__ import annotations

from rayml.hubs import HubFunction
from rayml.hubs import find_function as get
from rayml.hubs import list_functions as list  # noqa: A004 - `rayml.hub.list()`, as the API has it
from rayml.hubs import search_functions as search

__all__ = ["HubFunction", "get", "list", "search"]
