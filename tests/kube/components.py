"""The command lines of the components of a test control plane."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OPERATOR = "RAYML_TEST_KUBERAY_OPERATOR"

# Their controllers are what tests need; a node that does not report is the test's own doing.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
)


@dataclass(frozen=True)
class Settings:
    """Where everything of one plane is."""

    folder: Path
    programs: Path
    address: str  # the bridge's, with the length of the prefix
    kubeconfig: Path

    @property
    def ip(self) -> str:
        """The bridge's address alone."""
        return self.address.split("/", maxsplit=1)[0]


def command_lines(settings: Settings) -> dict[str, list[str]]:
    """The words that start each component, in the order in which they start."""
    kubeplane = str(settings.programs / "kubeplane")
    return {
        "etcd": [kubeplane, "etcd", *_etcd(settings)],
        "kube-apiserver": [kubeplane, "kube-apiserver", *_apiserver(settings)],
        "kube-controller-manager": [
            *(kubeplane, "kube-controller-manager"),
            *_controller_manager(settings),
        ],
        "kube-scheduler": [
            *(kubeplane, "kube-scheduler", f"--kubeconfig={settings.kubeconfig}"),
            *("--leader-elect=false", "--secure-port=0", "--profiling=false"),
        ],
        "kubelet": [
            *(kubeplane, "kubelet", f"--kubeconfig={settings.kubeconfig}"),
            *(f"--folder={settings.folder}", f"--sandbox={settings.programs / 'sandbox'}"),
            f"--address={settings.address}",
        ],
        "operator": _operator(kubeplane, settings),
    }


def _etcd(settings: Settings) -> list[str]:
    return [
        f"--data-dir={settings.folder / 'etcd'}",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]


def _apiserver(settings: Settings) -> list[str]:
    pki = settings.folder / "pki"
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=443",
        f"--advertise-address={settings.ip}",
        "--endpoint-reconciler-type=none",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--kubelet-preferred-address-types=InternalIP",
        # There is no controller that would take the taint of new nodes away again.
        "--disable-admission-plugins=TaintNodesByCondition",
        "--profiling=false",
    ]


def _controller_manager(settings: Settings) -> list[str]:
    pki = settings.folder / "pki"
    return [
        f"--kubeconfig={settings.kubeconfig}",
        "--leader-elect=false",
        f"--controllers={','.join(_CONTROLLERS)}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--secure-port=0",
        "--profiling=false",
    ]


def _operator(kubeplane: str, settings: Settings) -> list[str]:
    real = os.environ.get(OPERATOR)
    if real:
        return [
            *(real, f"--kubeconfig={settings.folder / 'operator.kubeconfig'}"),
            "--enable-leader-election=false",
        ]
    return [kubeplane, "operator", f"--kubeconfig={settings.folder / 'operator.kubeconfig'}"]
