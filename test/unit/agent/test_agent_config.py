"""The agent's settings, its example file, and what it finds on this box."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.resources import ResourceKey, parse
from edgerm_agent import host
from edgerm_agent.config import Config, load, parse_masters
from edgerm_agent.main import check

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "agent.toml"


def test_the_example_shows_the_defaults() -> None:
    """The commented file says what holds without it."""
    assert load(EXAMPLE) == Config()


def test_masters() -> None:
    """Several masters have commas between, over HTTP and CoAP; http is meant where no scheme stands."""
    assert parse_masters("a:1, https://b ,http://[::1]:5050/") == ("http://a:1", "https://b", "http://[::1]:5050")
    assert parse_masters("coap://b,coap://[::1]:6") == ("coap://b", "coap://[::1]:6")


@pytest.mark.parametrize("text", ["", "a,", "http://", "http://a:0", "http://a/b", "http://u@a", "http://a:b", "x://a"])
def test_no_master(text: str) -> None:
    """What is no master's address is refused with the form that is."""
    with pytest.raises(Invalid, match="http://HOST:PORT"):
        parse_masters(text)


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """No text does anything but give addresses or raise `Invalid`."""
    try:
        assert all(url.startswith(("http://", "https://", "coap://")) for url in parse_masters(text))
    except Invalid as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("master", "port", "looked_at"),
    [("a:1", None, 5051), ("coap://a,http://b", None, 5051), ("coap://a", None, None), ("coap://a", 7, 7), ("a", 0, 0)],
)
def test_who_may_look(master: str, port: int | None, looked_at: int | None) -> None:
    """An agent that speaks only CoAP answers no HTTP unless it is told to."""
    assert load(flags={"master": master, "port": port}).look_port == looked_at


@pytest.mark.parametrize("block_bytes", [0, 17, 2048, -1])
def test_block_sizes(block_bytes: int) -> None:
    """A block that CoAP does not have is refused with those that it has."""
    with pytest.raises(Invalid, match="block_bytes"):
        load(flags={"coap.block_bytes": block_bytes})


def test_what_is_here(tmp_path: Path) -> None:
    """CPUs, part of the memory, disk and ports are found; what the operator names counts instead, 0 for none."""
    found = host.detect(tmp_path)
    assert {key.name for key in found} >= {"cpus", "mem", "ports"}
    chosen = host.resources("cpus:0.5;ports:[1-2];mem:0;gpus:{a}", found)
    assert chosen[ResourceKey("cpus")] == 500
    assert chosen[ResourceKey("ports")] == ((1, 2),)
    assert chosen[ResourceKey("gpus")] == frozenset({"a"})
    assert ResourceKey("mem") not in chosen
    assert host.resources("", parse("cpus:1")) == parse("cpus:1")


def test_the_box_has_names() -> None:
    """The box says its name and, on Linux, its present boot."""
    assert host.hostname()
    assert host.boot_id() == host.boot_id() != ""


def test_the_doctor(tmp_path: Path) -> None:
    """Every line that is not well has a remedy, and looking makes no data directory."""
    lines = check(flags={"data_dir": str(tmp_path / "none"), "executors.process.enabled": False})
    assert all(well or remedy for _, well, remedy in lines)
    assert ("process tasks", False, "executors.process.enabled is false") in lines
    assert not (tmp_path / "none").exists()
