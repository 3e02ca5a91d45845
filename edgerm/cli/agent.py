"""`edgerm agent`: the command line of the agent. Help is answered without importing the agent."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("agent", short_help="Run an agent, which gives this box's resources to a master and runs its tasks.")
@click.option(
    "--master",
    metavar="URL",
    help="The master, such as http://10.0.0.1:5050 or coap://10.0.0.1; several with commas between, tried in turn."
    "  [http://127.0.0.1:5050]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings in TOML; /etc/edgerm/agent.toml if that exists. docs/examples/agent.toml shows them all.",
)
@click.option("--data-dir", metavar="DIR", help="Where everything is kept that must survive the agent.")
@click.option("--name", metavar="NAME", help="What people call this agent.  [the host's name]")
@click.option(
    "--port",
    type=int,
    metavar="PORT",
    help="Where /health is answered, on loopback; 0 picks one.  [5051; nowhere if all masters are coap://]",
)
@click.option("--process-user", metavar="USER", help="Whom process tasks run as; needed if the agent runs as root.")
@click.option("--resources", metavar="TEXT", help="Such as 'cpus:4;mem:2048;ports:[31000-32000]'; else detected.")
@click.option("--attributes", metavar="TEXT", help="Such as 'zone:a;line:7'; frameworks see them in offers.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log.  [info]")
@click.option("--lifeline", type=int, metavar="FD", hidden=True, help="End tasks and stop when this pipe ends.")
def command(
    master: str | None,
    config_file: Path | None,
    data_dir: str | None,
    name: str | None,
    port: int | None,
    process_user: str | None,
    resources: str | None,
    attributes: str | None,
    log_level: str | None,
    lifeline: int | None,
) -> None:
    """Run an agent until SIGTERM or Ctrl-C. Its tasks run on meanwhile, and the next agent takes them back.

    Prints `ready agent_id=…` once the master has taken it in. Settings come from the file, then the environment
    (EDGERM_MASTER, EDGERM_DATA_DIR, …), then these flags. `edgerm doctor` tells what this box can do.
    """
    from edgerm_agent.main import main  # noqa: PLC0415 - help must not wait for it

    flags = {
        "master": master,
        "data_dir": data_dir,
        "name": name,
        "port": port,
        "executors.process.user": process_user,
        "resources": resources,
        "attributes": attributes,
        "log.level": log_level,
    }
    raise SystemExit(main(config_file, flags, lifeline))
