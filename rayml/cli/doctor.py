"""`rayml doctor`: one line for each thing that runs need."""

from __future__ import annotations

from typing import Annotated

import typer

from rayml.cli.options import JsonOption, StoreOption
from rayml.cli.output import emit_json


def doctor(
    *,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Reach this cluster too; without it, no Ray."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Look at settings, versions, the store, credentials and clocks; exit code 1 if one fails."""
    from dataclasses import asdict  # noqa: PLC0415 - not for --help

    from rayml.diagnosis import diagnose  # noqa: PLC0415

    findings = []
    for finding in diagnose(store, cluster):
        findings.append(finding)
        if not as_json:
            print(f"{finding.level:<4}  {finding.check:<11}  {finding.text}", flush=True)
    if as_json:
        emit_json([asdict(finding) for finding in findings])
    return 1 if any(finding.level == "fail" for finding in findings) else 0
