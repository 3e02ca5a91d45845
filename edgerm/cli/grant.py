"""`edgerm grant`: devices for somebody on this box who is no task of a master."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgerm.cli.asking import USAGE, ask_box, data_dir_option, fail, json_option
from edgerm.cli.claiming import claim_options, read_options

if TYPE_CHECKING:
    from edgerm.core.claims import Claim


@click.command("grant", short_help="Take devices of the agent on this box, or give them back.")
@click.argument("name")
@claim_options
@click.option("--app", metavar="APP", help="Whose they are, for shared memories that are not everybody's.  [NAME]")
@click.option("--release", "give_back", is_flag=True, help="Give back what NAME has.")
@json_option
@data_dir_option
def command(
    name: str,
    claims: tuple[str, ...],
    claim_file: Path | None,
    app: str | None,
    give_back: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Take devices for NAME, and print the variables that tell which they are, a line each.

    They are NAME's until `edgerm grant NAME --release`, or the box is started anew: also while the agent is not
    running. What cannot be had at once is refused. Asked again with the same claims, it prints the same.

    With --json everything that was prepared: device nodes, mounts, CPUs.
    """
    asked = read_options(claims, claim_file)
    if give_back:
        if asked:
            fail("--release gives back all that NAME has: leave the claims out", USAGE)
        _released(ask_box(data_dir, "release", id=name)["quarantine"])
        return
    if not asked:
        fail("say what to take: --claim CLASS=COUNT, or --claim-file FILE", USAGE)
    answer = ask_box(data_dir, "grant", id=name, app=app, claims=[_plain(claim) for claim in asked])
    if as_json:
        sys.stdout.write(json.dumps(dict(answer), indent=2) + "\n")
        return
    for variable, value in answer["setup"]["env"]:
        sys.stdout.write(f"{variable}={value}\n")


def _released(quarantine: dict[str, str]) -> None:
    for name, evidence in quarantine.items():
        sys.stderr.write(f"{name} is in quarantine until it is clean: {evidence}\n")


def _plain(claim: Claim) -> dict[str, Any]:
    return {
        "name": claim.name,
        "type": claim.type,
        "count": claim.count,
        "shared": claim.shared,
        "optional": claim.optional,
        "config": json.loads(claim.config) if claim.config else {},
        "expressions": [
            {"key": each.key, "operator": each.operator.value, "values": json.loads(each.values)}
            for each in claim.expressions
        ],
    }
