"""What is sent to a kube-apiserver to be let in, and how its certificate is checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rayml.errors import ClusterUnreachable, SpecError

if TYPE_CHECKING:
    from rayml.cluster.kubeconfig import Entry, Section

_PLUGIN_WAIT_S: Final = 60.0
_LOGIN_WAIT_S: Final = 300.0
# A credential is not used any more so long before its end, so that it does not end on its way.
_EARLY_S: Final = 10.0
_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class Credentials:
    """Lets requests in: certificates, tokens, passwords and plugins of a kubeconfig.

    Safe to share among threads. A token file is read again for each request, a plugin is asked
    again when what it gave has ended.

    Attributes:
        server: The kube-apiserver's URL, without a slash at its end.
        proxy: Through which proxy it is reached, or None.
        server_name: The name in its certificate, where that is not the URL's.
        identity: Equal for equal servers and users; tells nothing of them.
    """

    def __init__(self, entry: Entry) -> None:
        if "auth-provider" in entry.user:
            raise SpecError(
                f"context {entry.context!r} logs in by an auth-provider, which Kubernetes 1.26 "
                "has dropped; use an exec plugin such as kubelogin"
            )
        self.server = str(entry.cluster["server"]).rstrip("/")
        self.proxy = entry.cluster.get("proxy-url") or _proxy_of(self.server)
        self.server_name: str | None = entry.cluster.get("tls-server-name")
        known = json.dumps([entry.cluster, entry.user], sort_keys=True, default=str)
        self.identity = hashlib.sha256(known.encode()).hexdigest()
        self._entry = entry
        self._given: dict[str, Any] = {}
        self._given_until = float("inf")
        self._context: ssl.SSLContext | None = None
        self._lock = threading.RLock()

    def headers(self) -> list[tuple[str, str]]:
        """Return what lets a request in; a name may come more than once.

        Raises:
            ClusterUnreachable: The plugin or the file that has the credentials gives none.
        """
        found = _impersonation(self._entry.user)
        if value := self._authorization():
            found.append(("Authorization", value))
        return found

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return how certificates are checked and given; None for plain HTTP.

        It is the same object until credentials change.

        Raises:
            SpecError: A certificate is not one.
        """
        if not self.server.startswith("https:"):
            return None
        with self._lock:
            given = self._ask_plugin()
            if self._context is None:
                user = {**self._entry.user, **_certificate_of(given)}
                self._context = _make_context(self._entry, user)
            return self._context

    def forget(self) -> bool:
        """Drop what a plugin gave, because it was refused; tell whether another try may help."""
        with self._lock:
            had_any = bool(self._given)
            self._given = {}
            self._given_until = float("inf")
            self._context = None
        return had_any or "tokenFile" in self._entry.user

    def explain_refusal(self) -> str:
        """Return in words what is wrong with credentials that were refused, and the way out."""
        value = self._authorization() or ""
        ended_at = _end_of_token(value.removeprefix("Bearer ")) if value else None
        if ended_at is not None and ended_at < time.time():
            moment = datetime.fromtimestamp(ended_at, UTC)
            return f"its token expired at {moment:%Y-%m-%d %H:%M:%S} UTC; log in again"
        what = "token or password is" if value else "client certificate is"
        return f"its {what} not accepted, expired perhaps; log in again"

    def _authorization(self) -> str | None:
        user = self._entry.user
        if "exec" in user:
            token = self._ask_plugin().get("token")
        elif "tokenFile" in user:
            token = _read_token(Path(user["tokenFile"]))
        else:
            token = user.get("token")
        if token:
            return f"Bearer {token}"
        if user.get("username"):
            pair = f"{user['username']}:{user.get('password', '')}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return None

    def _ask_plugin(self) -> dict[str, Any]:
        if "exec" not in self._entry.user:
            return {}
        with self._lock:
            if not self._given or time.time() > self._given_until - _EARLY_S:
                self._given = _run_plugin(self._entry)
                self._given_until = _time_of(self._given.get("expirationTimestamp"))
                self._context = None
            return self._given


def _proxy_of(server: str) -> str | None:
    """Follow HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""
    parts = urlsplit(server)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _impersonation(user: Section) -> list[tuple[str, str]]:
    groups = [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    return [("Impersonate-User", str(user["as"])), *groups] if user.get("as") else []


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as exc:
        raise ClusterUnreachable(
            f"the token file {path} cannot be read: {exc.strerror}; log in again"
        ) from exc


def _make_context(entry: Entry, user: Section) -> ssl.SSLContext:
    try:
        context = _trusting(entry.cluster)
        _give_certificate(context, user)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise SpecError(
            f"a certificate or key of context {entry.context!r} cannot be used: {exc}; mend the "
            "kubeconfig"
        ) from exc
    return context


def _trusting(cluster: Section) -> ssl.SSLContext:
    data = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=None if data else cluster.get("certificate-authority"),
        cadata=base64.b64decode(data).decode("ascii") if data else None,
    )
    # Clusters' own authorities often lack the extensions that strict checking asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _give_certificate(context: ssl.SSLContext, user: Section) -> None:
    """Hand over the client's certificate; Python takes it from files only, which go at once."""
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        certificate = _as_file(user, "client-certificate", Path(folder))
        key = _as_file(user, "client-key", Path(folder))
        if certificate is not None:
            context.load_cert_chain(certificate, key)


def _as_file(user: Section, name: str, folder: Path) -> Path | None:
    if data := user.get(f"{name}-data"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(data))
        return path
    return Path(user[name]) if user.get(name) else None


def _certificate_of(given: dict[str, Any]) -> dict[str, str]:
    """Return a plugin's certificate as a kubeconfig would hold it."""
    if "clientCertificateData" not in given:
        return {}
    certificate, key = given["clientCertificateData"], given.get("clientKeyData", "")
    return {
        "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }


def _run_plugin(entry: Entry) -> dict[str, Any]:
    plugin = entry.user["exec"]
    if plugin.get("apiVersion") not in _VERSIONS:
        raise SpecError(
            f"the login plugin of context {entry.context!r} speaks {plugin.get('apiVersion')!r}; "
            f"rayml knows {' and '.join(_VERSIONS)}"
        )
    words = [plugin["command"], *(plugin.get("args") or ())]
    is_interactive = plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()
    try:
        done = subprocess.run(
            words,
            check=False,
            env=_plugin_environment(entry, is_interactive=is_interactive),
            stdin=None if is_interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if is_interactive else subprocess.PIPE,
            timeout=_LOGIN_WAIT_S if is_interactive else _PLUGIN_WAIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ClusterUnreachable(_plugin_problem(entry, exc)) from exc
    if done.returncode != 0:
        raise ClusterUnreachable(_plugin_problem(entry, done))
    return _plugin_status(entry, done.stdout)


def _plugin_environment(entry: Entry, *, is_interactive: bool) -> dict[str, str]:
    plugin = entry.user["exec"]
    spec: dict[str, Any] = {"interactive": is_interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {"server": entry.cluster["server"]}
        if data := entry.cluster.get("certificate-authority-data"):
            spec["cluster"]["certificate-authority-data"] = data
    info = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    own = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(info)}


def _plugin_problem(entry: Entry, seen: Exception | subprocess.CompletedProcess[bytes]) -> str:
    plugin = entry.user["exec"]
    match seen:
        case FileNotFoundError():
            what = "is not installed"
        case subprocess.CompletedProcess():
            last = (seen.stderr or b"").decode(errors="replace").strip().rpartition("\n")[2]
            what = f"ended with exit code {seen.returncode}{': ' if last else ''}{last}"
        case subprocess.TimeoutExpired():
            what = f"did not end within {seen.timeout:.0f} s"
        case _:
            what = f"cannot be started: {seen}"
    hint = str(plugin.get("installHint") or "").strip().partition("\n")[0]
    way_out = hint if hint and isinstance(seen, FileNotFoundError) else "log in by hand once"
    return f"the login plugin {plugin['command']} of context {entry.context!r} {what}; {way_out}"


def _plugin_status(entry: Entry, output: bytes) -> dict[str, Any]:
    try:
        status = json.loads(output)["status"]
        if status.get("token") or status.get("clientCertificateData"):
            return dict(status)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise ClusterUnreachable(
        f"the login plugin {entry.user['exec']['command']} of context {entry.context!r} printed "
        "no credentials; log in by hand once"
    )


def _time_of(text: str | None) -> float:
    if not text:
        return float("inf")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return float("inf")


def _end_of_token(token: str) -> float | None:
    """Return when a JSON web token ends, which it says to everyone; None for any other token."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (LookupError, ValueError, TypeError, binascii.Error):
        return None
