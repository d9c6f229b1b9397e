"""`lineage()`: which data a model came from, and what was made of it since.

A run points to its inputs and its artifacts to the run. An input is an artifact of another run if
its URI says so, or if it has the same bytes (by digest); else it is data from elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rayml.artifacts import digest_of
from rayml.errors import NotFound, SpecError, suggestion
from rayml.registered import MODELS
from rayml.registry import artifact
from rayml.store import open_store
from rayml.tracker.catalog import open_catalog
from rayml.tracker.edits import find_edited, read_edited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from rayml.artifacts import ArtifactRecord
    from rayml.spec import InputRecord
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_RUN = "rayml://runs/"


@dataclass(frozen=True)
class Node:
    """A run, an artifact, or data from elsewhere.

    Attributes:
        kind: `run`; `model`, `dataset`, `plot`, `table` or `file`; `path`, `uri` or `memory`.
        uri: `rayml://runs/<run>` or `rayml://runs/<run>/<name>`, or where the data is.
        text: What it is called and, of a run, its state.
        versions: Of which models it is which version, such as `churn@3`, with their aliases.
    """

    kind: str
    uri: str
    text: str
    versions: tuple[str, ...] = ()

    def __str__(self) -> str:
        versions = f" = {', '.join(self.versions)}" if self.versions else ""
        return f"{self.kind} {self.text}{versions}"


class Lineage:
    """What one run, artifact or input came from, and what came from it.

    Attributes:
        node: What was asked about.
        upstream: All that it came from, the nearest first.
        downstream: All that came from it, the nearest first.
    """

    def __init__(self, node: Node, edges: Iterable[tuple[Node, Node]]) -> None:
        """Take what was asked about, and all that is known: pairs of a source and its product."""
        self._sources: dict[Node, list[Node]] = defaultdict(list)
        self._products: dict[Node, list[Node]] = defaultdict(list)
        for source, product in dict.fromkeys(edges):
            self._sources[product].append(source)
            self._products[source].append(product)
        self.node = node
        self.upstream = _reach(node, self._sources)
        self.downstream = _reach(node, self._products)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each step from a source to its product, upstream first.

        The columns are direction, source_kind, source, product_kind, product (URIs).
        """
        import pandas as pd  # noqa: PLC0415 - not needed to look

        above, below = {self.node, *self.upstream}, [self.node, *self.downstream]
        up = [(s, p) for p in self._sources if p in above for s in self._sources[p]]
        down = [(s, p) for s in below for p in self._products.get(s, [])]
        steps = [("upstream", *step) for step in up] + [("downstream", *step) for step in down]
        rows = [(way, s.kind, s.uri, p.kind, p.uri) for way, s, p in steps]
        columns = ["direction", "source_kind", "source", "product_kind", "product"]
        return pd.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        lines = [str(self.node)]
        for title, nexts in (("from", self._sources), ("to", self._products)):
            below = list(_branches(self.node, nexts, "  ", {self.node}))
            lines += [title, *below] if below else []
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<rayml.Lineage of {self}>"


def lineage(uri_or_run: str, *, store: str | Path | Store | None = None) -> Lineage:
    """Return what a run, artifact or input came from, and what came from it.

    Deleted runs are a part of it until their data is collected.

    Args:
        uri_or_run: A run's id (or a beginning of it, or `latest`), `rayml://runs/<run>/<name>`,
            `rayml://models/<model>@<version>`, or an input's URI or path as runs recorded it.
        store: Where; the project's own by default.

    Raises:
        SpecError: It is not the URI of an artifact.
        NotFound: The store has nothing of that name.
        StoreError: The store cannot be read.
    """
    if not isinstance(uri_or_run, str):
        raise SpecError(f"{uri_or_run!r} is not text; give a run's id or a URI")
    opened = open_store(store)
    graph = _Graph(opened)
    return Lineage(graph.find(uri_or_run), graph.edges())


class _Graph:
    """All that the runs of a store tell about what was made from what."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records = read_edited(store)
        self._runs = {run: _run_node(record) for run, record in self._records.items()}
        self._made: list[tuple[str, Node]] = []
        self._newest: dict[str, Node] = {}
        self._of_digest: dict[str, list[Node]] = defaultdict(list)
        self._inputs: dict[str, Node] = {}
        self._versions = _versions(store)
        self._add_artifacts()

    def _add_artifacts(self) -> None:
        for record in self._records.values():
            for logged in record.artifacts.values():
                self._newest[logged.uri] = self._add(logged)
        # A run may have logged another artifact in the place of one that is a model's version.
        for versions in self._versions.values():
            logged = versions[0][1]
            if self._exactly(logged.uri, digest_of(logged)) is None:
                self._add(logged)

    def _add(self, logged: ArtifactRecord) -> Node:
        digest = digest_of(logged)
        versions = tuple(text for text, _ in self._versions.get((logged.uri, digest), ()))
        node = Node(logged.kind, logged.uri, logged.uri, versions)
        self._made.append((logged.run, node))
        self._of_digest[digest].append(node)
        return node

    def _exactly(self, uri: str, digest: str) -> Node | None:
        same = (node for node in self._of_digest.get(digest, ()) if node.uri == uri)
        return next(same, None)

    def edges(self) -> Iterator[tuple[Node, Node]]:
        """Yield pairs of a source and its product."""
        for run, record in self._records.items():
            for given in record.spec.inputs.values():
                for source in self._given(run, given):
                    yield source, self._runs[run]
        for run, node in self._made:
            if run in self._runs:
                yield self._runs[run], node

    def _given(self, run: str, given: InputRecord) -> list[Node]:
        """Return the artifacts that an input is, or what it is else."""
        digest = given.digest or ""
        named = self._exactly(given.uri, digest) or self._newest.get(given.uri)
        if named is not None:
            return [named]
        same = self._of_digest.get(digest, [])
        others = [node for node in same if not node.uri.startswith(f"{_RUN}{run}/")]
        return others or [self._elsewhere(run, given)]

    def _elsewhere(self, run: str, given: InputRecord) -> Node:
        if given.kind == "memory":  # two objects in memory are not the same for being of one type
            return Node("memory", f"{given.uri}#{run}/{given.name}", given.uri)
        node = Node(given.kind, given.uri, given.uri)
        return self._inputs.setdefault(given.uri, node)

    def find(self, name: str) -> Node:
        """Return what a user names.

        Raises:
            NotFound: There is no such thing.
        """
        run = name.removeprefix(_RUN)
        if name.startswith((_RUN, MODELS)) and run not in self._runs:
            return self._find_artifact(name)
        for _ in self.edges():
            pass  # makes the inputs known
        if name in self._inputs:
            return self._inputs[name]
        if run not in self._runs and "/" in name:
            known = suggestion(name, self._inputs)
            raise NotFound(f"no run in {self._store.uri} has the input {name!r}; {known}")
        return self._runs[run if run in self._runs else find_edited(self._store, run).spec.run]

    def _find_artifact(self, uri: str) -> Node:
        found = artifact(uri, store=self._store)
        return self._exactly(found.uri, found.digest) or self._newest[found.uri]


def _versions(store: Store) -> dict[tuple[str, str], list[tuple[str, ArtifactRecord]]]:
    """Return what is registered, by the artifact's URI and digest, and as what."""
    found: dict[tuple[str, str], list[tuple[str, ArtifactRecord]]] = defaultdict(list)
    for name, model in open_catalog(store).refresh().models.items():
        for number, version in model.versions.items():
            aliases = [f" @{alias}" for alias, n in sorted(model.aliases.items()) if n == number]
            key = version.artifact.uri, digest_of(version.artifact)
            found[key].append((f"{name}@{number}{''.join(aliases)}", version.artifact))
    return found


def _run_node(record: RunRecord) -> Node:
    spec = record.spec
    again = f", rerun of {spec.rerun_of}" if spec.rerun_of else ""
    deleted = ", deleted" if record.attribute("deleted") else ""
    text = f"{spec.run} ({spec.name}, {record.state}{again}{deleted})"
    return Node("run", f"{_RUN}{spec.run}", text)


def _reach(start: Node, nexts: Mapping[Node, list[Node]]) -> list[Node]:
    """Return all nodes that can be reached, the nearest first."""
    seen, waiting = {start: None}, [start]
    while waiting:
        found = [node for one in waiting for node in nexts.get(one, [])]
        waiting = [node for node in dict.fromkeys(found) if node not in seen]
        seen.update(dict.fromkeys(waiting))
    return list(seen)[1:]


def _branches(
    node: Node, nexts: Mapping[Node, list[Node]], indent: str, shown: set[Node]
) -> Iterator[str]:
    for following in nexts.get(node, []):
        if following in shown:
            yield f"{indent}{following} (see above)"
            continue
        shown.add(following)
        yield f"{indent}{following}"
        yield from _branches(following, nexts, indent + "  ", shown)
