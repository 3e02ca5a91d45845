"""The options by which commands are told which devices are claimed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgerm.core.claims import Claim

F = TypeVar("F", bound=Callable[..., Any])

_claim: Callable[[F], F] = click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="CLASS=COUNT",
    help="So many devices of a class, such as siemens.com/isolated_core=2; also of a definition in --claim-file. "
    "May stand several times.",
)
_claim_file: Callable[[F], F] = click.option(
    "--claim-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="YAML with limits and definitions, as x-resources of a compose file has them.",
)


def claim_options(command: F) -> F:
    """`claims` and `claim_file`, for `read_options`."""
    return _claim(_claim_file(command))


def read_options(texts: tuple[str, ...], file: Path | None) -> tuple[Claim, ...]:
    """Those of the file and of --claim, which counts where both name the same."""
    from edgerm.core.errors import EdgermError, Invalid  # noqa: PLC0415
    from edgerm.sdk.claimfile import read_claims  # noqa: PLC0415
    from edgerm.sdk.claims import parse_claim, x_resources  # noqa: PLC0415

    limits: dict[str, int] = {}
    try:
        for text in texts:
            name, count = parse_claim(text)
            if name in limits:
                raise Invalid(f"{name!r} is claimed twice: write {name}={limits[name] + count}")
            limits[name] = count
        if file is None:
            return x_resources({}, limits)
    except Invalid as error:
        raise click.BadParameter(str(error), param_hint="--claim") from None
    try:
        return read_claims(file.read_text("utf-8"), limits)
    except (EdgermError, OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="--claim-file") from None
