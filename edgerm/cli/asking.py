"""What the commands that ask a master share: how it is named, how an error ends them, how a task is named.

What does not live here: anything that help would have to wait for; heavy modules are imported inside of functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from edgerm.core.errors import EdgermError
    from edgerm.sdk.operator import Name, Operator

FAILED, USAGE = 1, 2
MASTER = "http://127.0.0.1:5050"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

master_option: Callable[[F], F] = click.option(
    "--master",
    envvar="EDGERM_MASTER",
    default=MASTER,
    show_default=True,
    metavar="URL",
    help="The master's address; EDGERM_MASTER names it too.",
)
data_dir_option: Callable[[F], F] = click.option(
    "--data-dir",
    envvar="EDGERM_DATA_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Ask the agent on this box that keeps its data here; EDGERM_DATA_DIR names it too.",
)
json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print a list in JSON.")


def fail(why: object, status: int = FAILED) -> NoReturn:
    """End the command with one line on stderr."""
    context = click.get_current_context(silent=True)
    sys.stderr.write(f"{context.command_path if context else 'edgerm'}: {why}\n")
    raise SystemExit(status)


def ask(master: str, what: Callable[[Operator], Coroutine[Any, Any, T]]) -> T:
    """Ask a master; an error ends the command: 2 for an ambiguous name or a wrong address, else 1."""
    import asyncio  # noqa: PLC0415

    from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable  # noqa: PLC0415
    from edgerm.requests import begin_request, with_request  # noqa: PLC0415
    from edgerm.sdk.operator import Operator  # noqa: PLC0415
    from edgerm.transport.http_client import HttpClient  # noqa: PLC0415

    async def asked() -> T:
        async with HttpClient(master) as client:
            return await what(Operator(client))

    begin_request()
    try:
        return asyncio.run(asked())
    except (Conflict, Invalid) as error:
        fail(with_request(error), USAGE)
    except Unavailable as error:
        fail(with_remedy(error))
    except EdgermError as error:
        fail(with_request(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def ask_box(data_dir: Path | None, call: str, **arguments: object) -> Mapping[str, Any]:
    """Ask an agent on this box; an error ends the command: 2 for a wrong request, else 1."""
    import asyncio  # noqa: PLC0415

    from edgerm.core.errors import EdgermError, Invalid  # noqa: PLC0415
    from edgerm.transport.local import ask  # noqa: PLC0415

    if data_dir is None:
        fail("name the agent's data directory: --data-dir DIR, or EDGERM_DATA_DIR", USAGE)
    try:
        return asyncio.run(ask(data_dir, call, **arguments))
    except Invalid as error:
        fail(error, USAGE)
    except EdgermError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def with_remedy(error: EdgermError) -> str:
    """The error with what can be done about it."""
    if "cannot reach" in str(error):
        return f"{error}: start one with `edgerm up`, or name another with --master or EDGERM_MASTER"
    from edgerm.requests import with_request  # noqa: PLC0415

    return with_request(error)


def task_name(text: str) -> Name:
    """TASK or FRAMEWORK/TASK."""
    from edgerm.sdk.operator import Name  # noqa: PLC0415

    framework_id, slash, task_id = text.rpartition("/")
    if not task_id or (slash and not framework_id):
        fail(f"{text!r} names no task: use TASK or FRAMEWORK/TASK, as `edgerm ps` shows them", USAGE)
    return Name(task_id, framework_id or None)
