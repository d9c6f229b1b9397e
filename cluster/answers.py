"""What a kube-apiserver's refusals mean, in words: pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rayml.errors import (
    CapacityError,
    ClusterError,
    ClusterUnreachable,
    RaymlError,
    SpecError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    Status = Mapping[str, Any]

_USER: Final = re.compile(r'User "([^"]*)" cannot (\S+)')
_VERBS: Final = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
_MAX_SHOWN: Final = 300
_VALUE: Final = re.compile(r'Invalid value: "(?:[^"\\]|\\.)*"', re.DOTALL)
_SINGULAR: Final = {
    "rayclusters": "RayCluster",
    "serviceaccounts": "ServiceAccount",
    "rolebindings": "RoleBinding",
    "configmaps": "ConfigMap",
    "priorityclasses": "PriorityClass",
    "secrets": "Secret",
    "resourcequotas": "ResourceQuota",
}


class Conflict(ClusterError):
    """Somebody else changed the object, or it is there already; read again and decide anew."""


class Refused(ClusterError):
    """A rule that somebody has set for the Kubernetes cluster forbids the change."""


class RightMissing(ClusterUnreachable):
    """Who we are may not do this; the message says which right is missing, where, for whom."""


@dataclass(frozen=True)
class Target:
    """What a call is about.

    >>> str(Target("pods", "prod", "head")), str(Target("nodes"))
    ("pod 'head' in namespace 'prod'", 'nodes')
    """

    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        kind = _SINGULAR.get(self.resource, self.resource.removesuffix("s"))
        what = f"{kind} {self.name!r}" if self.name else self.resource
        return f"{what} in namespace {self.namespace!r}" if self.namespace else what


def read_status(body: bytes) -> Status | None:
    """Return the kube-apiserver's own account of an error; None if the text is another's.

    >>> read_status(b"404 page not found") is None
    True
    """
    try:
        found = json.loads(body)
    except ValueError:
        return None
    is_status = isinstance(found, dict) and found.get("kind") == "Status"
    return found if is_status else None


def explain(
    code: int, status: Status | None, method: str, target: Target, context: str
) -> RaymlError:
    """Return the error for an answer from 400 up that is neither 401 nor 404."""
    message = str((status or {}).get("message") or f"HTTP {code}")
    # So a ValidatingAdmissionPolicy answers, and some webhooks.
    is_denied = code == 422 and "denied" in message and not _causes(status)
    if code == 403 or is_denied:
        return _explain_forbidden(message, method, target, context)
    match code:
        case 409:
            return _explain_conflict(str((status or {}).get("reason")), target)
        case 422 if method == "PATCH" and not _causes(status):
            # So it answers when a `test` of a JSON patch fails, or a path is not there any more.
            return Conflict(f"{target} changed meanwhile; read it again and repeat the change")
        case 400 | 422:
            what = "; ".join(_causes(status)) or message
            return SpecError(f"the kube-apiserver refuses {target}: {what}; mend these fields")
        case 413:
            return SpecError(f"{target} is larger than the kube-apiserver takes; make it smaller")
    busy = "try again in a while" if code in (429, 500, 503, 504) else "see the server's log"
    return ClusterUnreachable(
        f"the kube-apiserver of context {context!r} answered {code} about {target}: {message}; "
        f"{busy}"
    )


def _explain_forbidden(message: str, method: str, target: Target, context: str) -> RaymlError:
    found = _USER.search(message)
    if found is None:
        kind = CapacityError if "exceeded quota" in message else Refused
        what = message.partition("is forbidden: ")[2] or message
        return kind(f"Kubernetes refuses {target}: {what}; ask whoever set this rule")
    verb = found[2] or _VERBS.get(method, "get")
    return RightMissing(missing_right(found[1], verb, target, context))


def missing_right(user: str, verb: str, target: Target, context: str) -> str:
    """Return the sentence about a right that is missing.

    >>> missing_right("ann", "list", Target("pods", "prod"), "work")
    "'ann' of context 'work' may not list pods in namespace 'prod'; ask for a Role with this right"
    """
    name = f" {target.name!r}" if target.name else ""
    where = f" in namespace {target.namespace!r}" if target.namespace else ""
    role = "Role" if target.namespace else "ClusterRole"
    return (
        f"{user!r} of context {context!r} may not {verb} {target.resource}{name}{where}; "
        f"ask for a {role} with this right"
    )


def _explain_conflict(reason: str, target: Target) -> Conflict:
    if reason == "AlreadyExists":
        return Conflict(f"{target} is there already; choose another name, or change it")
    return Conflict(f"{target} changed meanwhile; read it again and repeat the change")


def _causes(status: Status | None) -> list[str]:
    """Return which fields are refused and why; a server adds one without a field of its own."""
    causes = ((status or {}).get("details") or {}).get("causes") or ()
    texts = [f"{cause['field']}: {cause.get('message')}" for cause in causes if cause.get("field")]
    return [_short(text) for text in texts if not text.startswith("<nil>")]


def _short(text: str) -> str:
    """Leave out the value, which may be the whole object: what is wrong with it comes after it.

    >>> _short('patch: Invalid value: "' + "x" * 999 + '": unknown field "a"')
    'patch: Invalid value: unknown field "a"'
    """
    if len(text) <= _MAX_SHOWN:
        return text
    text = _VALUE.sub("Invalid value", text)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
