"""Checks of the parts of `Resources` that a Kubernetes pod takes as they are.

They catch what would be refused minutes later, by a server far away: misspelt keys, names that
Kubernetes does not take, two sources for one volume. What only the cluster can know (does the
claim exist, is there such a priority class) is left to it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rayml.errors import SpecError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

VOLUME_SOURCES = (
    "configMap",
    "csi",
    "emptyDir",
    "hostPath",
    "nfs",
    "persistentVolumeClaim",
    "secret",
)
_VOLUME_OPTIONS = ("mount_path", "name", "read_only", "sub_path")
_AFFINITIES = ("nodeAffinity", "podAffinity", "podAntiAffinity")
_TOLERATION_FIELDS = ("effect", "key", "operator", "tolerationSeconds", "value")
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
# Who else writes labels on a worker's pod: the operator and rayml.
_RESERVED_PREFIXES = ("ray.io/", "rayml.io/", "kubernetes.io/", "k8s.io/")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def check_plain(field: str, value: object) -> None:
    """Check that a value is made of dicts, lists, texts, numbers and None alone.

    Raises:
        SpecError: Something in it has no form in JSON, which is what a pod is written in.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise SpecError(
            f"{field} is no plain data ({exc}); write dicts, lists, texts and numbers only"
        ) from exc


def check_name(field: str, value: object) -> None:
    """Check the name of an object: lower-case letters, digits, dashes and dots.

    Raises:
        SpecError: Kubernetes does not take it as a name.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > 253:
        raise SpecError(
            f"{field}={value!r} is not a name in Kubernetes; write at most 253 lower-case "
            "letters, digits, dashes and dots"
        )


def check_selector(field: str, labels: object) -> dict[str, str]:
    """Check a mapping of labels to values, and return it.

    Raises:
        SpecError: It is no mapping of texts, or a key or value is not a label's.
    """
    if not isinstance(labels, dict):
        raise SpecError(f"{field}={labels!r} is not a dict of labels; write {{'key': 'value'}}")
    for key, value in labels.items():
        if not is_label_key(key):
            raise SpecError(
                f"{field} has the key {key!r}, which is not a label's; write up to 63 letters, "
                "digits, '-', '_' and '.', if need be after a domain and a slash"
            )
        if not is_label_value(value):
            raise SpecError(
                f"{field} has {value!r} for {key!r}, which is not a label's value; write up to 63 "
                "letters, digits, '-', '_' and '.', as text"
            )
    return labels


def check_labels(labels: object) -> None:
    """Check the labels that pods get; those of Kubernetes, KubeRay and rayml are taken.

    Raises:
        SpecError: One is malformed, or belongs to someone else.
    """
    for key in check_selector("labels", labels):
        domain = key.partition("/")[0] + "/" if "/" in key else ""
        if any(domain == p or domain.endswith("." + p) for p in _RESERVED_PREFIXES):
            raise SpecError(
                f"labels has the key {key!r}, and {domain[:-1]} labels are written by the "
                "cluster; choose a key of your own"
            )


def check_tolerations(tolerations: object) -> None:
    """Check tolerations in the form of a pod's `spec.tolerations`.

    Raises:
        SpecError: One has a field or value that Kubernetes does not know.
    """
    for index, toleration in enumerate(_dicts("tolerations", tolerations)):
        where = f"tolerations[{index}]"
        _check_fields(where, toleration, _TOLERATION_FIELDS)
        operator = toleration.get("operator", "Equal")
        if operator not in ("Equal", "Exists"):
            raise SpecError(f"{where} has the operator {operator!r}; it is 'Equal' or 'Exists'")
        if operator == "Exists" and toleration.get("value"):
            raise SpecError(
                f"{where} has a value and the operator 'Exists'; leave one of them out"
            )
        if operator == "Equal" and not toleration.get("key"):
            raise SpecError(f"{where} has no key; name one, or use the operator 'Exists'")
        effect = toleration.get("effect")
        if effect is not None and effect not in _EFFECTS:
            raise SpecError(
                f"{where} has the effect {effect!r}; {suggestion(str(effect), _EFFECTS)}"
            )


def check_affinity(affinity: object) -> None:
    """Check that an affinity has the parts of a pod's `spec.affinity`, each of them a dict.

    Raises:
        SpecError: It has others.
    """
    if not isinstance(affinity, dict):
        raise SpecError(f"affinity={affinity!r} is not a dict; write it as in a pod's spec")
    _check_fields("affinity", affinity, _AFFINITIES)
    for name, part in affinity.items():
        if not isinstance(part, dict):
            raise SpecError(f"affinity[{name!r}]={part!r} is not a dict; write it as in a pod")
    required = affinity.get("nodeAffinity", {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution", {}
    )
    terms = required.get("nodeSelectorTerms") if isinstance(required, dict) else None
    is_listed = isinstance(terms, list) and all(isinstance(t, dict) and t for t in terms)
    if required and not (terms and is_listed):
        raise SpecError(
            "affinity['nodeAffinity'] requires something without a list of nodeSelectorTerms; "
            "write {'nodeSelectorTerms': [{'matchExpressions': [...]}]}"
        )


def check_volumes(volumes: object) -> None:
    """Check volumes in the form that `Resources` describes.

    Raises:
        SpecError: One lacks a name, a mount path or a source, has two, or repeats another's.
    """
    found = _dicts("volumes", volumes)
    for index, volume in enumerate(found):
        _check_volume(f"volumes[{index}]", volume)
    for field in ("name", "mount_path"):
        values = [volume[field] for volume in found]
        if twice := sorted({v for v in values if values.count(v) > 1}):
            raise SpecError(f"two volumes have the {field} {twice[0]!r}; give each its own")


def _check_volume(where: str, volume: Mapping[str, Any]) -> None:
    _check_fields(where, volume, (*_VOLUME_OPTIONS, *VOLUME_SOURCES))
    name, path = volume.get("name"), volume.get("mount_path")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "." in name or len(name) > 63:
        raise SpecError(
            f"{where} has the name {name!r}; write at most 63 lower-case letters, "
            "digits and dashes"
        )
    if name.startswith("rayml-"):
        raise SpecError(f"{where} has the name {name!r}, and rayml- is rayml's; choose another")
    if not isinstance(path, str) or not path.startswith("/") or ":" in path:
        raise SpecError(f"{where} has the mount_path {path!r}; write an absolute path without ':'")
    if not isinstance(volume.get("read_only", False), bool):
        raise SpecError(f"{where} has read_only={volume['read_only']!r}; it is True or False")
    sources = [source for source in VOLUME_SOURCES if source in volume]
    if len(sources) != 1:
        given = " and ".join(sources) or "none"
        raise SpecError(
            f"{where} needs one source and has {given}; give one of {', '.join(VOLUME_SOURCES)}"
        )
    if not isinstance(volume[sources[0]], dict):
        raise SpecError(
            f"{where} has {sources[0]}={volume[sources[0]]!r}; write a dict, as in a pod's spec"
        )


def _dicts(field: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise SpecError(f"{field}={value!r} is not a list of dicts; write it as in a pod's spec")
    return value


def _check_fields(where: str, given: Iterable[object], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise SpecError(f"{where} has the field {name!r}; {suggestion(str(name), known)}")


def is_label_key(key: object) -> bool:
    """Tell whether something can be a label's key, or the name of an extended resource.

    >>> is_label_key("nvidia.com/gpu"), is_label_key("no key")
    (True, False)
    """
    if not isinstance(key, str):
        return False
    domain, slash, name = key.rpartition("/")
    has_domain = bool(_NAME.fullmatch(domain)) and len(domain) <= 253
    return _is_word(name) and (has_domain if slash else True)


def is_label_value(value: object) -> bool:
    """Tell whether something can be a label's value.

    >>> is_label_value("NVIDIA-A100-SXM4-40GB"), is_label_value("two words")
    (True, False)
    """
    return isinstance(value, str) and (not value or _is_word(value))


def _is_word(text: str) -> bool:
    return len(text) <= 63 and _WORD.fullmatch(text) is not None


CHECKS: dict[str, Callable[[object], object]] = {
    "node_selector": lambda value: check_selector("node_selector", value),
    "tolerations": check_tolerations,
    "affinity": check_affinity,
    "priority_class": lambda value: check_name("priority_class", value),
    "volumes": check_volumes,
    "service_account": lambda value: check_name("service_account", value),
    "labels": check_labels,
}
