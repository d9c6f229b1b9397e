"""Ways into an apiserver: kubeconfigs of every usual kind, and a client of few words for tests."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CALL_S = 30.0
# A field that the CRD does not know is an error, as it is for kubectl.
STRICTLY = {"fieldValidation": "Strict"}


@dataclass(frozen=True)
class Server:
    """An apiserver: its URL and the certificate of its authority."""

    url: str
    ca: Path

    def kubeconfig(self, path: Path, user: Mapping[str, Any], namespace: str = "default") -> Path:
        """Write a kubeconfig whose only context has this user and namespace."""
        ca = base64.b64encode(self.ca.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority-data": ca},
                }
            ],
            "users": [{"name": "test", "user": dict(user)}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": "test", "namespace": namespace},
                }
            ],
        }
        path.write_text(yaml.safe_dump(content))
        path.chmod(0o600)
        return path


def certificate_user(certificate: Path) -> dict[str, Any]:
    """A user with a client certificate, and its key beside it."""
    key = certificate.with_suffix(".key")
    return {
        "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(key.read_bytes()).decode(),
    }


def token_user(token: str) -> dict[str, Any]:
    """A user with a bearer token."""
    return {"token": token}


def exec_user(script: Path, token: str) -> dict[str, Any]:
    """A user whose token a plugin tells, as those of the clouds do; the script is written here."""
    credential = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
        f'"status": {{"token": "{token}"}}}}'
    )
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{credential}\nEND\n")
    script.chmod(0o700)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "interactiveMode": "Never",
        }
    }


class ApiError(Exception):
    """The apiserver refused a call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Calls to an apiserver by path, as the user of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        folder = kubeconfig.with_name(f"{kubeconfig.name}.api")
        folder.mkdir(mode=0o700, exist_ok=True)
        self.url = cluster["server"]
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of this machine does not reach the plane
        self._session.verify = _file(folder / "ca.crt", cluster, "certificate-authority") or True
        if "token" in user:
            self._session.headers["Authorization"] = f"Bearer {user['token']}"
        else:
            certificate = _file(folder / "client.crt", user, "client-certificate")
            key = _file(folder / "client.key", user, "client-key")
            if certificate and key:
                self._session.cert = (certificate, key)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Make a call and return what came, whatever it is."""
        return self._session.request(
            method, self.url + path, timeout=options.pop("timeout", CALL_S), **options
        )

    def get(self, path: str, **params: Any) -> Any:
        """The object or list at a path."""
        return _content(self.call("GET", path, params=params))

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object in the collection at a path."""
        return _content(self.call("POST", path, json=body, params=STRICTLY))

    def patch(self, path: str, body: Any, kind: str = "merge") -> Any:
        """Patch an object: kind is merge, strategic-merge or json."""
        content_type = f"application/{kind}-patch+json"
        return _content(
            self.call(
                "PATCH", path, json=body, params=STRICTLY, headers={"Content-Type": content_type}
            )
        )

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Delete an object or a collection."""
        return _content(self.call("DELETE", path, json=body))

    def wait(
        self, path: str, until: Callable[[Any], bool], timeout_s: float = 30.0, **params: Any
    ) -> Any:
        """Ask for a path until the answer is as wanted; a 404 counts as None.

        Raises:
            TimeoutError: it has not become so in time; it holds the last answer.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer = self.get(path, **params)
            except ApiError as exc:
                if exc.status != 404:
                    raise
                answer = None
            if until(answer):
                return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is not as wanted after {timeout_s} s: {answer}")
            time.sleep(0.05)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _content(answer: requests.Response) -> Any:
    if not answer.ok:
        try:
            message = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            message = answer.text
        raise ApiError(answer.status_code, message)
    return answer.json()


def _named(config: Mapping[str, Any], kind: str, name: str) -> Any:
    return next(entry for entry in config[kind] if entry["name"] == name)


def _file(target: Path, entry: Mapping[str, Any], key: str) -> str | None:
    """The path of what an entry holds, either as a path or as data, which is written down."""
    if f"{key}-data" in entry:
        target.write_bytes(base64.b64decode(entry[f"{key}-data"]))
        target.chmod(0o600)
        return str(target)
    value = entry.get(key)
    return str(value) if value else None
