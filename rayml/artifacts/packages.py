"""Which installed packages a model needs, as pip takes them."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version


def requirements(*modules: str) -> list[str]:
    """Return the packages that these modules come from, at their versions; own code has none.

    >>> [one.partition("==")[0] for one in requirements("msgspec", "json")]
    ['msgspec']
    """
    packages = {package for module in modules for package in _packages_of(module)}
    # What is behind the + tells builds apart, which are on no public index.
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted(packages)]


def _packages_of(module: str) -> list[str]:
    """Return the package of the module's own name if it has the module, else look at all."""
    try:
        named = (distribution(module).read_text("top_level.txt") or "").split()
    except PackageNotFoundError:
        named = []
    return [module] if module in named else _packages().get(module, [])


@lru_cache(maxsize=1)
def _packages() -> dict[str, list[str]]:
    return {module: list(names) for module, names in packages_distributions().items()}
