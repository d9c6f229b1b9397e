"""What a docstring says, section by section, as far as a hub shows it."""

from __future__ import annotations

import re
from inspect import cleandoc

_SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Example|Examples|Note):\s*$")
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w+)(?: \([^)]*\))?:\s*(.*)$")


def summary_of(docstring: str) -> str:
    r"""Return the first sentence's line, without its full stop.

    >>> summary_of("Describe a table.\n\nMore of it.")
    'Describe a table'
    """
    return cleandoc(docstring).partition("\n\n")[0].replace("\n", " ").rstrip(".")


def text_of(docstring: str) -> str:
    """Return what stands between the summary and the first section."""
    rest = cleandoc(docstring).partition("\n\n")[2]
    lines: list[str] = []
    for line in rest.splitlines():
        if _SECTION.match(line):
            break
        lines.append(line)
    return "\n".join(lines).strip()


def arguments_of(docstring: str) -> dict[str, str]:
    r"""Return what the section of the arguments says of each, in one line.

    >>> arguments_of("Do.\n\nArgs:\n    rows: How many\n        there are.\n    seed: Of it.")
    {'rows': 'How many there are.', 'seed': 'Of it.'}
    """
    found: dict[str, str] = {}
    name, inside = "", False
    for line in cleandoc(docstring).splitlines():
        if section := _SECTION.match(line):
            inside = section[1] == "Args"
        elif inside and (entry := _ENTRY.match(line)):
            name = entry[1].lstrip("*")
            found[name] = entry[2].strip()
        elif inside and name and line.strip():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
