"""`edgerm agent`: the command line of the agent. Help is answered without importing the agent."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgerm.cli.asking import USAGE, fail


@click.command("agent", short_help="Run an agent, which gives this box's resources to a master and runs its tasks.")
@click.option(
    "--master",
    metavar="URL",
    help="The master, such as http://10.0.0.1:5050 or coap://10.0.0.1; several with commas between, tried in turn."
    " Without one the agent stands alone, and gives its devices to whoever asks on this box.",
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
@click.option(
    "--kubelet-dir",
    metavar="DIR",
    help="Let device plugins for Kubernetes register here, such as /var/lib/kubelet/device-plugins.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log.  [info]")
@click.option("--purge", is_flag=True, help="Do not run: end what a stopped agent left on this box, remove its data.")
@click.option("--yes", is_flag=True, help="With --purge: do not ask.")
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
    kubelet_dir: str | None,
    log_level: str | None,
    purge: bool,
    yes: bool,
    lifeline: int | None,
) -> None:
    """Run an agent until SIGTERM or Ctrl-C. Its tasks run on meanwhile, and the next agent takes them back.

    Prints `ready agent_id=…` once the master has taken it in, or at once if there is none. Settings come from the
    file, then the environment (EDGERM_MASTER, EDGERM_DATA_DIR, …), then these flags. `edgerm doctor` tells what this
    box can do.
    """
    if yes and not purge:
        raise click.UsageError("--yes is for --purge")
    import edgerm_agent.main  # noqa: PLC0415 - help must not wait for it

    flags = {
        "master": master,
        "data_dir": data_dir,
        "name": name,
        "port": port,
        "executors.process.user": process_user,
        "resources": resources,
        "attributes": attributes,
        "devices.kubelet_dir": kubelet_dir,
        "log.level": log_level,
    }
    if purge:
        raise SystemExit(edgerm_agent.main.purge(config_file, flags, lambda found: _agreed(found, yes=yes)))
    raise SystemExit(edgerm_agent.main.main(config_file, flags, lifeline))


def _agreed(found: str, *, yes: bool) -> bool:
    """Say what will be removed, and ask unless that was answered before."""
    click.echo(f"edgerm agent: will end and remove {found}", err=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        fail("nobody can be asked here: say --yes if you mean it", USAGE)
    return click.confirm("Remove all of it?", err=True)
