"""Which installed packages a model needs, as pip takes them."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import packages_distributions, version


def requirements(*modules: str) -> list[str]:
    """Return the packages that these modules come from, at their versions; own code has none.

    >>> [one.partition("==")[0] for one in requirements("msgspec", "json")]
    ['msgspec']
    """
    packages = {package for module in modules for package in _packages().get(module, ())}
    # What is behind the + tells builds apart, which are on no public index.
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted(packages)]


@lru_cache(maxsize=1)
def _packages() -> dict[str, list[str]]:
    return {module: list(names) for module, names in packages_distributions().items()}
