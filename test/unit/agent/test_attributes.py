"""Attributes from text, and those that an agent adds."""

from __future__ import annotations

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.v1.infos_pb2 import AgentInfo
from edgerm.wire.v1.resources_pb2 import Value
from edgerm_agent import host
from edgerm_agent.attributes import parse, told

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-/]{0,20}", fullmatch=True).filter(
    lambda name: not name.startswith("edgerm.")
)
WORDS = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20).filter(
    lambda word: ";" not in word and word.strip() == word and word[0] not in "[{" and not word[0].isdigit()
)
VALUES = st.one_of(
    st.integers(0, 10**9).map(str),
    st.lists(st.tuples(st.integers(0, 99), st.integers(100, 999)), min_size=1, max_size=3).map(
        lambda pairs: "[" + ",".join(f"{begin}-{end}" for begin, end in pairs) + "]"
    ),
    st.sets(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=4).map(
        lambda items: "{" + ",".join(sorted(items)) + "}"
    ),
    WORDS,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_text_and_back(attributes: dict[str, str]) -> None:
    """Whatever is written as NAME:VALUE with semicolons between is read back as it was."""
    assert parse(" ; ".join(f"{name}: {value}" for name, value in attributes.items())) == attributes


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but give attributes or raise `Invalid` with one line."""
    try:
        parse(text)
    except Invalid as error:
        assert "\n" not in str(error)


def test_the_four_types() -> None:
    """A number is a scalar, brackets are ranges, braces a set, all else text."""
    found = parse("zone:a;line:7;floors:[1-3,7-9];caps:{gpio,can}")
    message = AgentInfo.FromString(attributes_info("here", found))
    assert [(a.name, a.type) for a in message.attributes] == [
        ("zone", Value.TEXT),
        ("line", Value.SCALAR),
        ("floors", Value.RANGES),
        ("caps", Value.SET),
    ]


@pytest.mark.parametrize("text", ["zone", ":a", "zone:", "a:1;a:2", "edgerm.x:1", "1a:2", "a:" + "x" * 2000])
def test_refused(text: str) -> None:
    """A part that is no attribute, stands twice or takes a name of ours is refused."""
    with pytest.raises(Invalid):
        parse(text)


def test_what_is_enforced_is_told() -> None:
    """Executors and what holds their tasks to each limit stand beside the operator's attributes."""
    ours = told({"zone": "a"}, {"wasm": {"mem": "wasm"}, "process": {"cpus": "cgroup-v1", "mem": "none"}})
    assert ours == {
        "zone": "a",
        "edgerm.executors": "{process,wasm}",
        "edgerm.limit.process.cpus": "cgroup-v1",
        "edgerm.limit.process.mem": "none",
        "edgerm.limit.wasm.mem": "wasm",
    }


def test_the_operators_word_counts_more_than_the_boxs() -> None:
    """What the box says of itself is told unless the operator says otherwise; the agent's own names are its own."""
    box = {"arch": "amd64", "os": "linux"}
    found = told({"arch": "sparc", "zone": "a"}, {"process": {"cpus": "none"}}, box)
    assert found == {
        "arch": "sparc",
        "os": "linux",
        "zone": "a",
        "edgerm.executors": "{process}",
        "edgerm.limit.process.cpus": "none",
    }


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("riscv64", "riscv64"), ("", None)],
)
def test_architectures_are_called_as_images_call_them(
    machine: str, arch: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the name is not known the kernel's is told, and none where that is empty."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    kind = host.kind()
    assert (kind.get("arch"), kind["os"]) == (arch, "linux")
    parse(";".join(f"{name}:{value}" for name, value in kind.items()))
