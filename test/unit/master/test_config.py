"""The master's settings."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm_master.config import Address, Config, load, parse_address

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "master.toml"


def test_the_example_shows_every_setting_with_its_default() -> None:
    """docs/examples/master.toml is complete and says what holds without it."""
    assert tomllib.loads(EXAMPLE.read_text()) == msgspec.to_builtins(Config())


def test_other_machines_are_served_only_when_insecure_is_said() -> None:
    """Listening elsewhere than on loopback needs --insecure, and the refusal says so."""
    with pytest.raises(Invalid, match="--insecure"):
        load(EXAMPLE, {"http": "0.0.0.0:5050"})
    assert load(EXAMPLE, {"http": "0.0.0.0:5050", "insecure": True}).address == Address("0.0.0.0", 5050)
    with pytest.raises(Invalid, match=r"coap = .*--insecure"):
        load(EXAMPLE, {"coap": "0.0.0.0:5683"})
    assert load(EXAMPLE, {"coap": "0.0.0.0:5683", "insecure": True}).coap_address == Address("0.0.0.0", 5683)


def test_an_empty_address_is_no_coap() -> None:
    """CoAP can be left out; what is no address is refused."""
    assert load(EXAMPLE, {"coap": ""}).coap_address is None
    with pytest.raises(Invalid, match="HOST:PORT"):
        load(EXAMPLE, {"coap": "5683"})


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("localhost:5050", Address("localhost", 5050), True),
        ("[::1]:5050", Address("::1", 5050), True),
        (":5050", Address("0.0.0.0", 5050), False),
        ("example.org:80", Address("example.org", 80), False),
    ],
)
def test_addresses(text: str, address: Address, loopback: bool) -> None:
    """Hosts with names, IPv4 and IPv6, and which of them only this machine reaches."""
    assert parse_address(text) == address
    assert parse_address(text).loopback is loopback


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    """No text leads to another error, and a port is always in range."""
    with suppress(Invalid):
        assert 0 <= parse_address(text).port <= 65_535
