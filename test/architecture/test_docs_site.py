"""The site that `make docs` builds: without a warning, whole, and without a look at the network."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from google.protobuf.descriptor import Descriptor

import edgerm_agent.config
import edgerm_master.config
from edgerm.cli.main import root
from edgerm.config import leaves, variable
from edgerm.transport.status import ANSWERS
from edgerm.wire.v1 import link_pb2, master_pb2, offers_pb2, operator_pb2, scheduler_pb2, tasks_pb2

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `source` and `html`."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/build.py"), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


def test_it_has_every_page_and_a_search(site: Path) -> None:
    """No warning: every page is in the tree, every link and anchor leads somewhere; words are found offline."""
    html = site / "html"
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    assert [str(page) for page in pages if not (html / page.with_suffix(".html")).exists()] == []
    assert (html / "search.html").exists()
    assert '"doorbel' in (html / "searchindex.js").read_text()


class _Fetched(HTMLParser):
    """What a browser fetches of itself: scripts, styles, pictures, fonts; links that a person follows are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.found += [told["src"] or ""] if "src" in told else []
        self.found += [told["href"] or ""] if tag == "link" and "href" in told else []


def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    """The site works on a machine without a network."""
    html, fetched = site / "html", 0
    for page in html.rglob("*.html"):
        parser = _Fetched()
        parser.feed(page.read_text())
        assert [place for place in parser.found if re.match(r"\w+:|//", place)] == [], page.name
        fetched += len(parser.found)
    assert fetched
    styles = "".join(path.read_text() for path in html.rglob("*.css"))
    assert re.findall(r"""(?:url\(|@import )["']?(?:https?:|//)[^)]*""", styles) == []


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[click.Parameter]]]:
    yield context.command_path, command.get_params(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, click.Context(inner, info_name=name, parent=context))


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    """Each command has its heading, and below it each option that is not hidden."""
    parts = re.split(r"^## ", (site / "source/reference/cli.md").read_text(), flags=re.MULTILINE)
    told = {part.partition("\n")[0]: part for part in parts[1:]}
    commands = dict(_commands(root, click.Context(root, info_name="edgerm")))
    assert list(told) == list(commands)
    for path, params in commands.items():
        options = [param for param in params if isinstance(param, click.Option) and not param.hidden]
        assert [option.opts for option in options if option.opts[0] not in told[path]] == []


def test_the_reference_has_every_setting(site: Path) -> None:
    """Each setting of master and agent has a row with its variable and what it is for."""
    page = (site / "source/reference/settings.md").read_text()
    for settings in (edgerm_master.config.Config, edgerm_agent.config.Config):
        for path, _ in leaves(settings):
            name = re.escape(".".join(path))
            assert re.search(rf"^\| `(?:{name}`.* `{variable(path)}` \| \S|\[\[{name}\]\])", page, re.MULTILINE), path


def test_the_reference_has_every_message_and_field(site: Path) -> None:
    """Each message of each file has its table, each field its row, and fields of ours in Mesos' messages say so."""
    for module in (link_pb2, master_pb2, offers_pb2, operator_pb2, scheduler_pb2, tasks_pb2):
        name = Path(module.DESCRIPTOR.name).stem
        text = (site / f"source/reference/messages/{name}.md").read_text()
        tables = dict(re.findall(r"^#{2,4} (\S+)\n(.*?)(?=^\(proto|\Z)", text, re.MULTILINE | re.DOTALL))
        for message in module.DESCRIPTOR.message_types_by_name.values():
            _check(message, tables, module.DESCRIPTOR.package, mesos=name not in ("link", "operator"))


def _check(message: Descriptor, tables: dict[str, str], package: str, *, mesos: bool) -> None:
    rows = tables[message.full_name.removeprefix(f"{package}.")]
    for field in message.fields:
        ours = r" \(ours\)" if mesos and field.number >= 1000 else ""
        assert re.search(rf"^\| {field.number}{ours} \| `{field.name}` \|", rows, re.MULTILINE), field.full_name
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            _check(nested, tables, package, mesos=mesos)


def test_the_reference_has_every_error(site: Path) -> None:
    """Each code is there with its HTTP status and its CoAP code."""
    page = (site / "source/reference/errors.md").read_text()
    for code, answer in ANSWERS.items():
        row = rf"^\| `{code.value}` \| {answer.http} .* \| {answer.coap >> 5}\.{answer.coap & 31:02} \|"
        assert re.search(row, page, re.MULTILINE), code


@pytest.mark.parametrize("name", ["master", "agent"])
def test_the_units_start_what_is_there(name: str) -> None:
    """Each unit starts its program with options that it has; the agent's leaves tasks alone when it ends."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / f"docs/examples/edgerm-{name}.service")
    _, program, *options = unit["Service"]["ExecStart"].split()
    command = root.get_command(click.Context(root), program)
    assert program == name
    assert command is not None
    known = {flag for param in command.params for flag in param.opts}
    assert {option for option in options if option.startswith("-")} <= known
    variables = {
        variable(path) for path, _ in leaves({"master": edgerm_master, "agent": edgerm_agent}[name].config.Config)
    }
    assert unit["Service"]["Environment"].partition("=")[0] in variables
    kept = {key: unit["Service"].get(key) for key in ("KillMode", "Delegate", "OOMPolicy")}
    tasks = {"KillMode": "process", "Delegate": "yes", "OOMPolicy": "continue"}
    assert kept == (tasks if name == "agent" else dict.fromkeys(tasks))


def test_the_library_is_described(site: Path) -> None:
    """What is public is there by name, with its words."""
    page = (site / "html/reference/sdk.html").read_text()
    for name in ("edgerm.sdk.Scheduler.offers", "edgerm.sdk.Cluster.run", "edgerm.core.scheduler.TaskSpec"):
        assert f'id="{name}"' in page
    assert "Use or decline them" in page
