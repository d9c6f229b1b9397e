"""Which kube-apiserver is meant and with whose credentials: kubeconfig files, or a pod's account.

Read here, and not by a client library, so that a laptop and a pod of a stock Ray image need no
more than Ray itself brings, and no private key is ever left behind in a temporary file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from rayml.errors import ClusterUnreachable, SpecError, suggestion

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_POD: Final = "this pod's service account"
_PATHS: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")

Section: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A context, with all that its name stands for.

    Attributes:
        context: Its name, for messages.
        namespace: What it uses when none is named.
        cluster: The cluster's section: `server`, certificates, proxy. Paths in it are absolute.
        user: The user's section: certificates, token, or a plugin. Paths in it are absolute.
    """

    context: str
    namespace: str
    cluster: Section
    user: Section


def _is_in_pod() -> bool:
    """Tell whether this process may speak to its cluster as a pod does."""
    has_address = "KUBERNETES_SERVICE_HOST" in os.environ
    return has_address and (ACCOUNT_FOLDER / "token").exists()


def find_entry(context: str | None = None) -> Entry:
    """Return the context with this name; without one, what kubectl would use.

    A pod uses its service account, unless KUBECONFIG or a context is set.

    Raises:
        SpecError: There is no such context, or a file is not a kubeconfig.
        ClusterUnreachable: There is no kubeconfig, or it names no current context.
    """
    if context is None and "KUBECONFIG" not in os.environ and _is_in_pod():
        return _account_entry()
    files = [path for path in _files() if path.exists()]
    if not files:
        where = ", ".join(map(str, _files()))
        raise ClusterUnreachable(
            f"there is no kubeconfig at {where} and this is no pod; set KUBECONFIG to one"
        )
    return _read_entry([_read_file(path) for path in files], context)


def _files() -> list[Path]:
    named = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return [Path(name).expanduser() for name in named or ["~/.kube/config"]]


def _account_entry() -> Entry:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    return Entry(
        context=IN_POD,
        namespace=(ACCOUNT_FOLDER / "namespace").read_text("utf-8").strip(),
        cluster={
            "server": f"https://{host}:{port}",
            "certificate-authority": str(ACCOUNT_FOLDER / "ca.crt"),
        },
        user={"tokenFile": str(ACCOUNT_FOLDER / "token")},
    )


def _read_file(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only who reads a kubeconfig pays for it

    try:
        found = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as exc:
        raise SpecError(
            f"kubeconfig {path} cannot be read: {exc.strerror}; mend its rights or set KUBECONFIG"
        ) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SpecError(f"kubeconfig {path} is not YAML; mend it or set KUBECONFIG") from exc
    if not isinstance(found, dict):
        raise SpecError(f"kubeconfig {path} holds no mapping; mend it or set KUBECONFIG")
    for kind, inner in (("clusters", "cluster"), ("users", "user")):
        for item in found.get(kind) or ():
            item[inner] = _with_absolute_paths(item.get(inner) or {}, path.parent)
    return found


def _with_absolute_paths(section: Section, folder: Path) -> Section:
    found = dict(section)
    for name in _PATHS:
        if found.get(name):
            found[name] = str(folder / found[name])
    command = str((found.get("exec") or {}).get("command") or "")
    if os.sep in command:
        found["exec"] = {**found["exec"], "command": str(folder / command)}
    return found


def _read_entry(configs: list[dict[str, Any]], context: str | None) -> Entry:
    """Merge as kubectl does: the first file that says something is right."""
    wanted = context or next(filter(None, (c.get("current-context") for c in configs)), None)
    contexts = _named(configs, "contexts", "context")
    if wanted is None:
        raise ClusterUnreachable(
            f"the kubeconfig sets no current context; choose one: {', '.join(sorted(contexts))}"
        )
    if wanted not in contexts:
        raise SpecError(
            f"the kubeconfig has no context {wanted!r}; {suggestion(wanted, contexts)}"
        )
    found = contexts[wanted]
    return Entry(
        context=wanted,
        namespace=found.get("namespace") or "default",
        cluster=_section(configs, "cluster", wanted, found),
        user=_section(configs, "user", wanted, found) if found.get("user") else {},
    )


def _named(configs: list[dict[str, Any]], kind: str, inner: str) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for config in configs:
        for item in config.get(kind) or ():
            found.setdefault(str(item.get("name")), item.get(inner) or {})
    return found


def _section(configs: list[dict[str, Any]], kind: str, context: str, refers: Section) -> Section:
    sections = _named(configs, f"{kind}s", kind)
    name = str(refers.get(kind))
    if name not in sections or (kind == "cluster" and not sections[name].get("server")):
        raise SpecError(
            f"context {context!r} of the kubeconfig refers to {kind} {name!r}, which is not "
            f"there; {suggestion(name, sections)}"
        )
    return sections[name]
