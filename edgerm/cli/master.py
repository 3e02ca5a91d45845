"""`edgerm master`: the command line of the master. Help is answered without importing the master."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("master", short_help="Run the master, which offers what agents have to frameworks.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings in TOML; /etc/edgerm/master.toml if that exists. docs/examples/master.toml shows them all.",
)
@click.option("--http", metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.  [127.0.0.1:5050]")
@click.option("--coap", metavar="HOST:PORT", help="The same for agents over CoAP; '' for none.  [127.0.0.1:5683]")
@click.option("--data-dir", metavar="DIR", help="Where everything is kept that must survive the master.")
@click.option("--insecure", is_flag=True, default=None, help="Serve other machines although nobody is authenticated.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log.  [info]")
@click.option("--lifeline", type=int, metavar="FD", hidden=True, help="Stop when this inherited pipe ends.")
def command(
    config_file: Path | None,
    http: str | None,
    coap: str | None,
    data_dir: str | None,
    insecure: bool | None,
    log_level: str | None,
    lifeline: int | None,
) -> None:
    """Run the master until SIGTERM or Ctrl-C. Tasks run on meanwhile, and are found again by the next master.

    Prints `ready http=http://HOST:PORT coap=coap://HOST:PORT` once it serves. Settings come from the file, then the
    environment (EDGERM_HTTP, EDGERM_DATA_DIR, …), then these flags.
    """
    from edgerm_master.main import main  # noqa: PLC0415 - help must not wait for it

    flags = {"http": http, "coap": coap, "data_dir": data_dir, "insecure": insecure, "log.level": log_level}
    raise SystemExit(main(config_file, flags, lifeline))
