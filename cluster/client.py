"""The only module that calls kube-apiservers."""

from __future__ import annotations

import json
from base64 import b64decode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

from rayml.cluster.answers import Conflict, RightMissing, Target, explain, read_status
from rayml.cluster.calls import Calls
from rayml.cluster.credentials import Credentials
from rayml.cluster.kubeconfig import find_entry
from rayml.config import setting
from rayml.errors import ClusterError, ClusterUnreachable, NotFound, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rayml.cluster.address import ClusterName

    Item = dict[str, Any]
    Items = list[Item]

__all__ = ["Conflict", "KubeClient", "RightMissing"]

_PATIENCE_S: Final = 10.0
_PAGE: Final = 500
_NO_SUCH_PATH: Final = b"404 page not found"
_HEAD_PORT: Final = 8265
# Unknown fields are refused, which the server would drop silently.
_STRICTLY: Final = {"fieldValidation": "Strict"}
_GROUPS: Final = {
    "customresourcedefinitions": "apiextensions.k8s.io",
    "priorityclasses": "scheduling.k8s.io",
    "rayclusters": "ray.io",
    "rolebindings": "rbac.authorization.k8s.io",
    "roles": "rbac.authorization.k8s.io",
    "selfsubjectaccessreviews": "authorization.k8s.io",
}


class KubeClient:
    """Calls the kube-apiserver of one context; safe to share among threads.

    A call that gets no answer is tried again for `patience_s`, then raises `ClusterUnreachable`;
    so does a call that is refused: expired credentials (`log in again`) or a missing right
    (`RightMissing`, which says which verb on which resource in which namespace for whom).

    Attributes:
        context: The context's name, for messages.
        namespace: The context's own namespace.
        credentials: What lets requests in.
    """

    def __init__(
        self,
        credentials: Credentials,
        context: str,
        namespace: str = "default",
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.credentials = credentials
        self.context = context
        self.namespace = namespace
        self._calls = Calls(credentials, context, patience_s)

    @classmethod
    def connect(cls, context: str | None = None, patience_s: float = _PATIENCE_S) -> Self:
        """Return a client of a context, of KUBECONFIG's current one, or of the pod we are in.

        Nothing is called yet.

        Args:
            context: Of the kubeconfig; None takes the setting `kube_context`, else kubectl's.
            patience_s: For how long a call is tried again that gets no answer.

        Raises:
            SpecError: There is no such context; those there are, are named.
            ClusterUnreachable: There is no kubeconfig.
        """
        entry = find_entry(setting("kube_context", context))
        return cls(Credentials(entry), entry.context, entry.namespace, patience_s)

    def __repr__(self) -> str:
        return f"KubeClient({self.context!r} at {self.credentials.server})"

    # For objects of any kind; a resource is named as in a Role: `pods`, `rayclusters`.

    def get(self, resource: str, name: str, namespace: str = "") -> Item:
        """Return one object.

        Raises:
            NotFound: It is not there; says whether its namespace is missing.
            ClusterError: It is a RayCluster and KubeRay's operator is not installed.
        """
        target = Target(resource, namespace, name)
        return self._answer("GET", target)

    def find(self, resource: str, name: str, namespace: str = "") -> Item | None:
        """Return one object, or None if there is none of this name."""
        try:
            return self._answer("GET", Target(resource, namespace, name), is_asked=True)
        except NotFound:
            return None

    def list(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> Items:
        """Return all objects that the selectors let through, in the server's order."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        target = Target(resource, namespace)
        found: Items = []
        while True:
            page = self._answer("GET", target, query=query)
            found += page.get("items") or ()
            query["continue"] = page.get("metadata", {}).get("continue") or ""
            if not query["continue"]:
                return found

    def create(self, resource: str, item: Item, namespace: str = "") -> Item:
        """Create an object.

        Raises:
            Conflict: There is one of this name.
            NotFound: Its namespace is not there.
            SpecError: The server's schema refuses it; names the fields.
        """
        target = Target(resource, namespace, _name_of(item))
        return self._answer("POST", target, item, query=_STRICTLY)

    def patch(
        self,
        resource: str,
        name: str,
        changes: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        namespace: str = "",
        *,
        is_trial: bool = False,
    ) -> Item:
        """Change an object: a list is a JSON patch, a mapping a merge patch.

        A trial changes nothing, but is refused as the change would be.

        Raises:
            Conflict: Somebody changed it, or a `test` of the patch failed; read and try again.
            NotFound: It is not there.
            SpecError: The server's schema refuses the outcome; names the fields.
        """
        query = {**_STRICTLY, "dryRun": "All" if is_trial else ""}
        return self._answer("PATCH", Target(resource, namespace, name), changes, query=query)

    def delete(self, resource: str, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Ask for an object's deletion; tell whether it was there.

        Args:
            resource: Such as `pods`.
            name: The object's.
            namespace: The object's; empty for what lies in none.
            uid: Delete only the one with this uid, none of its successors.

        Raises:
            Conflict: It has another uid.
        """
        options: Item = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._answer("DELETE", Target(resource, namespace, name), options, is_asked=True)
        except NotFound:
            return False
        return True

    def can_i(self, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Tell whether we have a right; a part of an object is written `services/proxy`."""
        kind, _, part = resource.partition("/")
        wanted = {"verb": verb, "resource": kind, "subresource": part, "name": name}
        where = {"namespace": namespace, "group": _GROUPS.get(kind, "")}
        review = {"spec": {"resourceAttributes": wanted | where}}
        found = self._answer("POST", Target("selfsubjectaccessreviews"), review)
        return bool(found["status"]["allowed"])

    def server_version(self) -> str:
        """Return the kube-apiserver's version, such as `v1.36.3`."""
        code, body = self._calls.send("GET", "/version")
        if code != HTTPStatus.OK:
            raise explain(code, read_status(body), "GET", Target("version"), self.context)
        return str(json.loads(body)["gitVersion"])

    # For Ray clusters.

    def ray_cluster(self, name: ClusterName) -> Item:
        """Return a RayCluster.

        Raises:
            NotFound: Namespace or RayCluster is not there; names those that are.
            ClusterError: KubeRay's operator is not installed.
        """
        return self.get("rayclusters", name.name, name.namespace)

    def patch_ray_cluster(
        self,
        name: ClusterName,
        changes: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        *,
        is_trial: bool = False,
    ) -> Item:
        """Change a RayCluster; see `patch`."""
        return self.patch("rayclusters", name.name, changes, name.namespace, is_trial=is_trial)

    def pods(self, name: ClusterName) -> Items:
        """Return all pods of a RayCluster, its head's too."""
        return self.list("pods", name.namespace, labels=f"ray.io/cluster={name.name}")

    def label_pod(self, namespace: str, pod: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of a pod; None takes one away.

        Raises:
            NotFound: The pod is gone.
        """
        self.patch("pods", pod, {"metadata": {"labels": dict(labels)}}, namespace)

    def events(self, namespace: str, kind: str = "", name: str = "") -> Items:
        """Return the events about an object, about all of a kind, or of a namespace."""
        about = {"involvedObject.kind": kind, "involvedObject.name": name}
        chosen = ",".join(f"{field}={value}" for field, value in about.items() if value)
        return self.list("events", namespace, fields=chosen)

    def quotas(self, namespace: str) -> Items:
        """Return the namespace's ResourceQuotas."""
        return self.list("resourcequotas", namespace)

    def nodes(self) -> Items | None:
        """Return the nodes; None if we may not see them."""
        try:
            return self.list("nodes")
        except RightMissing:
            return None

    def has_autoscaler(self) -> bool:
        """Tell whether Kubernetes' own autoscaler may add nodes, as far as we can see."""
        try:
            return self.find("configmaps", "cluster-autoscaler-status", "kube-system") is not None
        except RightMissing:
            return False

    def ray_token(self, name: ClusterName) -> str | None:
        """Return Ray's token of a RayCluster; None if the cluster asks for none.

        Raises:
            RightMissing: We may not read its Secret.
            NotFound: The RayCluster, or its Secret, is not there.
        """
        options = self.ray_cluster(name)["spec"].get("authOptions") or {}
        if options.get("mode") != "token":
            return None
        secret = self.get("secrets", options.get("secretName") or name.name, name.namespace)
        return b64decode(secret.get("data", {}).get("auth_token", "")).decode() or None

    def proxy_path(self, name: ClusterName) -> str:
        """Return the path at which the kube-apiserver passes requests on to a cluster's head."""
        service = f"{name.head_service}:{_HEAD_PORT}"
        return f"/api/v1/namespaces/{name.namespace}/services/{service}/proxy"

    def _answer(
        self,
        method: str,
        target: Target,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        is_asked: bool = False,
    ) -> Item:
        """Return what the server says about a target; `is_asked`: whether it is there at all."""
        code, found = self._calls.send(method, _path_of(method, target, query), body)
        if code < HTTPStatus.BAD_REQUEST:
            return dict(json.loads(found))
        status = read_status(found)
        if code != HTTPStatus.NOT_FOUND:
            raise explain(code, status, method, target, self.context)
        # About an object that is not there, a server says its name.
        if not ((status or {}).get("details") or {}).get("name"):
            raise self._not_served(target.resource, found)
        raise NotFound(f"{target} is not there") if is_asked else self._missing(target)

    def _not_served(self, resource: str, body: bytes) -> ClusterError:
        """Return the error for a kind of object that the server does not know."""
        if body.startswith(_NO_SUCH_PATH) or read_status(body) is not None:
            is_ray = resource == "rayclusters"
            way_out = "install KubeRay's operator 1.7 or newer" if is_ray else "update it"
            return ClusterError(
                f"the Kubernetes of context {self.context!r} knows no {resource}; {way_out}"
            )
        return ClusterUnreachable(
            f"what answers at {self.credentials.server} of context {self.context!r} is no "
            "kube-apiserver; check the context's server, and HTTPS_PROXY"
        )

    def _missing(self, target: Target) -> NotFound:
        """Return the error that says what is missing: the namespace, or the object in it."""
        where = f"in context {self.context!r}"
        if target.namespace and self._has_namespace(target.namespace) is False:
            known = suggestion(target.namespace, self._names("namespaces"))
            return NotFound(f"namespace {target.namespace!r} is not there {where}; {known}")
        if target.resource != "rayclusters":
            return NotFound(f"{target} is not there {where}; it may have just gone, look again")
        known = suggestion(target.name, self._names(target.resource, target.namespace))
        way_out = f"{known.removesuffix('?')}, or make it by rayml cluster up"
        return NotFound(f"{target} is not there {where}; {way_out}")

    def _has_namespace(self, namespace: str) -> bool | None:
        try:
            return self.find("namespaces", namespace) is not None
        except ClusterError:
            return None

    def _names(self, resource: str, namespace: str = "") -> Sequence[str]:
        try:
            return [_name_of(item) for item in self.list(resource, namespace)]
        except (ClusterError, NotFound):
            return []


def _name_of(item: Mapping[str, Any]) -> str:
    return str(item.get("metadata", {}).get("name", ""))


def _path_of(method: str, target: Target, query: Mapping[str, str] | None) -> str:
    group = _GROUPS.get(target.resource, "")
    parts = [f"/apis/{group}/v1" if group else "/api/v1"]
    if target.namespace:
        parts.append(f"namespaces/{quote(target.namespace, safe='')}")
    parts.append(target.resource)
    if target.name and method != "POST":
        parts.append(quote(target.name, safe=""))
    chosen = {name: value for name, value in (query or {}).items() if value}
    return "/".join(parts) + (f"?{urlencode(chosen)}" if chosen else "")
