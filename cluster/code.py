"""How rayml's own code comes into pods of a stock Ray image.

The code lies in immutable ConfigMaps, one projected volume shows all their parts as files, and
what the Ray container runs before Ray unpacks them and puts a `sitecustomize` on Python's path.
That one appends the code to `sys.path`: what the image has of the same name comes first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayml.errors import SpecError

MOUNT = "/etc/rayml/code"
# The bundle is a tar.gz of three folders: `code`, what to import; `hook`, with HOOK in it; `bin`,
# with the command `rayml`.
ROOT = "/tmp/rayml"  # noqa: S108 - in a container of our own, where every image can write
CODE_FOLDER, HOOK_FOLDER, HOOK_FILE = "code", "hook", "sitecustomize.py"
COMMAND_FOLDER = "bin"
VOLUME = "rayml-code"
_TEXT = re.compile(r"([0-9a-f]{12})-([1-9]\d{0,2})")

HOOK = f'''\
"""Appends rayml's code to the path, then does what any other sitecustomize would have done."""
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_here = os.path.dirname(os.path.abspath(__file__))
_code = os.path.join(os.path.dirname(_here), "{CODE_FOLDER}")
if _code not in sys.path:
    sys.path.append(_code)
_spec = PathFinder.find_spec(
    "sitecustomize", [p for p in sys.path if os.path.abspath(p or ".") != _here]
)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(module_from_spec(_spec))
'''


@dataclass(frozen=True)
class Code:
    """One version of rayml's code in a cluster.

    Attributes:
        digest: The first twelve hexadecimal digits of the bundle's SHA-256.
        parts: Into how many ConfigMaps it is cut.
    """

    digest: str
    parts: int

    @classmethod
    def parse(cls, text: str) -> Code:
        """Return the code that `str()` gave this text for.

        >>> Code.parse("0123456789ab-3").names[0]
        'rayml-code-0123456789ab-0'

        Raises:
            SpecError: It is no such text.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise SpecError(f"{text!r} does not name rayml's code; run rayml cluster up again")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.digest}-{self.parts}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ConfigMaps, in order."""
        return tuple(f"rayml-code-{self.digest}-{index}" for index in range(self.parts))

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key in `binaryData` of each ConfigMap: in their order they sort as text."""
        return tuple(f"part-{index:03d}" for index in range(self.parts))


def code_volume(code: Code) -> dict[str, object]:
    """Return the pod's volume that shows all parts as files of one folder."""
    sources = [{"configMap": {"name": name}} for name in code.names]
    return {"name": VOLUME, "projected": {"sources": sources}}


def code_mount() -> dict[str, object]:
    """Return the Ray container's mount of that volume."""
    return {"name": VOLUME, "mountPath": MOUNT, "readOnly": True}


def wake_command() -> list[str]:
    """Return the `command` of a head whose image has rayml: it brings rayml's actors back."""
    return ["(python3 -m rayml.wake &)"]


def code_command(*, is_head: bool = False) -> list[str]:
    """Return the Ray container's `command`: what its shell does before it starts Ray.

    KubeRay joins it to its own line with `&&`, in one bash: what is exported reaches Ray. On the
    head it also starts what brings rayml's actors back after the head was replaced.
    """
    steps = [
        f"mkdir -p {ROOT}",
        f"cat {MOUNT}/part-* | tar -xzf - -C {ROOT}",
        f'export PYTHONPATH="{ROOT}/{HOOK_FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}"',
        f'export PATH="$PATH:{ROOT}/{COMMAND_FOLDER}"',
    ]
    if is_head:
        steps += wake_command()
    # KubeRay starts Ray whatever came before: without rayml it must not start at all.
    return [" && ".join(steps) + " || exit 1"]
