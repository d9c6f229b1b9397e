"""What a kube-apiserver's refusals mean, and what no kube-apiserver would say."""

from __future__ import annotations

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import Conflict, Refused, RightMissing, Target, explain, read_status
from rayml.cluster.client import KubeClient
from rayml.cluster.credentials import Credentials
from rayml.cluster.kubeconfig import Entry
from rayml.errors import CapacityError, ClusterError, ClusterUnreachable, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGET = Target("rayclusters", "team", "one")


def status(message: str = "", reason: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "message": message, "reason": reason, "details": details}


def explained(code: int, method: str = "GET", **about: Any) -> Exception:
    return explain(code, status(**about), method, TARGET, "work")


def test_a_missing_right_names_who_what_and_where() -> None:
    said = 'rayclusters.ray.io "one" is forbidden: User "ann" cannot get resource "rayclusters"'
    error = explained(403, message=said)

    assert isinstance(error, RightMissing)
    assert str(error) == (
        "'ann' of context 'work' may not get rayclusters 'one' in namespace 'team'; "
        "ask for a Role with this right"
    )


def test_a_quota_is_no_missing_right() -> None:
    error = explained(403, "POST", message='"one" is forbidden: exceeded quota: few, used: 1')

    assert isinstance(error, CapacityError)
    assert "exceeded quota: few" in str(error)


def test_a_rule_of_an_admission_webhook_is_quoted() -> None:
    error = explained(403, "POST", message="admission webhook denied the request: no heads here")

    assert type(error) is Refused
    assert "no heads here" in str(error)


def test_a_policy_of_kubernetes_own_is_quoted_and_no_conflict() -> None:
    message = (
        "rayclusters.ray.io \"one\" is forbidden: ValidatingAdmissionPolicy 'small' with binding "
        "'all' denied request: at most 8 workers"
    )
    error = explained(422, "PATCH", message=message, causes=[{"message": message}])

    assert type(error) is Refused
    assert "denied request: at most 8 workers" in str(error)


def test_a_failed_test_of_a_patch_is_a_conflict_and_a_refused_field_is_not() -> None:
    causes = [{"field": "spec.a", "message": "too long"}, {"field": "<nil>", "message": "more"}]

    assert isinstance(explained(422, "PATCH"), Conflict)
    assert isinstance(explained(409, "PATCH"), Conflict)
    refused = explained(422, "PATCH", causes=causes)
    assert isinstance(refused, SpecError)
    assert "spec.a: too long;" in str(refused)
    assert "more" not in str(refused)


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_a_busy_server_is_to_be_asked_again(code: int) -> None:
    error = explained(code, message="etcd is busy")

    assert isinstance(error, ClusterUnreachable)
    assert f"answered {code} about RayCluster 'one'" in str(error)
    assert "etcd is busy" in str(error)


@pytest.mark.parametrize("kind", [Conflict, RightMissing])
def test_errors_travel(kind: type[Exception]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("why; way out")))) == "why; way out"


@pytest.mark.parametrize("body", [b"", b"404 page not found", b"[]", b'{"kind": "Pod"}'])
def test_what_is_no_status_is_another_s_text(body: bytes) -> None:
    assert read_status(body) is None


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], KubeClient]]:
    """A client of a server that always gives the same answer."""
    servers = []

    def serve(code: int, body: bytes) -> KubeClient:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
        entry = Entry(context="work", namespace="team", cluster=cluster, user={})
        return KubeClient(Credentials(entry), "work", patience_s=0.2)

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_kubernetes_without_kuberay_says_how_to_get_it(answering: Any) -> None:
    client = answering(404, b"404 page not found\n")

    with pytest.raises(ClusterError, match="knows no rayclusters; install KubeRay's operator"):
        client.ray_cluster(ClusterName("team", "one"))


def test_another_web_server_is_not_taken_for_kubernetes(answering: Any) -> None:
    client = answering(404, b"<html>Not Found</html>")

    with pytest.raises(ClusterUnreachable, match="is no kube-apiserver; check the context"):
        client.find("pods", "one", "team")


def test_a_server_that_stays_busy_is_said_to_be(answering: Any) -> None:
    client = answering(503, json.dumps(status("starting")).encode())

    with pytest.raises(ClusterUnreachable, match="answered 503 about pods in namespace"):
        client.list("pods", "team")


def test_an_old_way_to_log_in_is_named() -> None:
    user = {"auth-provider": {"name": "oidc"}}
    entry = Entry(context="work", namespace="team", cluster={"server": "https://a"}, user=user)

    with pytest.raises(SpecError, match="use an exec plugin such as kubelogin"):
        Credentials(entry)


def test_a_proxy_is_taken_from_the_kubeconfig_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def proxy(**cluster: str) -> str | None:
        section = {"server": "https://kube.example:6443", **cluster}
        return Credentials(Entry(context="a", namespace="b", cluster=section, user={})).proxy

    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert proxy() == "http://proxy:3128"
    assert proxy(**{"proxy-url": "http://own:1"}) == "http://own:1"
    monkeypatch.setenv("NO_PROXY", "kube.example")
    assert proxy() is None


def test_a_certificate_that_is_none_is_a_wrong_call() -> None:
    cluster = {"server": "https://a", "certificate-authority-data": "bm9uZQ=="}
    entry = Entry(context="work", namespace="team", cluster=cluster, user={})

    with pytest.raises(SpecError, match="certificate or key of context 'work' cannot be used"):
        Credentials(entry).ssl_context()


def test_equal_identities_tell_nothing() -> None:
    def make(token: str) -> str:
        user = {"token": token}
        cluster = {"server": "https://a"}
        entry = Entry(context="work", namespace="team", cluster=cluster, user=user)
        return Credentials(entry).identity

    assert make("secret") == make("secret") != make("other")
    assert "secret" not in make("secret")
