"""What is told of a core: the types of the table, on three boards, and from any text."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm.core.metadata import to_text
from edgerm_agent.devices.cpu import metadata

BOARDS = Path(__file__).parents[2] / "fixtures/boards"
SCHEMA = json.loads(metadata.SCHEMA)


def told(board: str, cpu: int) -> dict[str, object]:
    root = BOARDS / board
    return {
        "cpuset": [cpu],
        "cpuinfo": metadata.parse_cpuinfo((root / "proc/cpuinfo").read_text())[cpu],
        "lscpu": metadata.parse_lscpu((root / "programs/lscpu -J").read_text()),
        "lscpue": metadata.parse_lscpu_e((root / "programs/lscpu -e -J").read_text())[cpu],
    }


@pytest.mark.parametrize("board", ["hybrid", "hyperthreaded", "arm"])
def test_every_core_keeps_to_the_schema(board: str) -> None:
    """The metadata of each CPU of each board are metadata, and fit the schema."""
    for cpu in range(8):
        found = told(board, cpu)
        assert to_text(found)
        jsonschema.validate(found, SCHEMA)


def test_x86() -> None:
    """Numbers are numbers, flags words, what `lscpu` says texts."""
    found = told("hybrid", 3)
    cpuinfo, lscpu, lscpue = found["cpuinfo"], found["lscpu"], found["lscpue"]
    assert isinstance(cpuinfo, dict) and isinstance(lscpu, dict) and isinstance(lscpue, dict)
    assert (cpuinfo["core id"], cpuinfo["cpu cores"], cpuinfo["cpu MHz"]) == (4, 6, 1703.0)
    assert "avx2" in cpuinfo["flags"] and cpuinfo["microcode"] == "0x434"
    assert (lscpu["Architecture"], lscpu["CPU max MHz"], lscpu["CPU(s)"]) == ("x86_64", "4400.0000", "8")
    assert (lscpue["cpu"], lscpue["maxmhz"], lscpue["online"]) == (3, 4400.0, "yes")


def test_arm() -> None:
    """The architecture is an integer, features are words, a serial number of digits is a text."""
    found = told("arm", 6)
    cpuinfo, lscpu, lscpue = found["cpuinfo"], found["lscpu"], found["lscpue"]
    assert isinstance(cpuinfo, dict) and isinstance(lscpu, dict) and isinstance(lscpue, dict)
    assert (cpuinfo["CPU architecture"], cpuinfo["CPU part"], cpuinfo["BogoMIPS"]) == (8, "0xd0b", 48.0)
    assert "asimd" in cpuinfo["Features"]
    assert cpuinfo["Serial"] == "0000000000000042"
    assert (lscpu["Architecture"], lscpu["CPU max MHz"]) == ("aarch64", "1800.0000")
    assert (lscpue["maxmhz"], lscpue["minmhz"], lscpue["core"]) == (2352.0, 408.0, 6)


def test_the_schema_has_its_titles() -> None:
    """The titles are those that applications know."""
    parts = SCHEMA["properties"]
    assert SCHEMA["title"] == "CPU Metadata"
    assert [parts[name]["title"] for name in ("cpuinfo", "lscpu", "lscpue")] == ["CPU Info", "Lscpu", "LscpuE"]


def test_a_field_of_another_kind_is_left_out() -> None:
    """What is a number everywhere else is missing where it is none, so that filters never meet two kinds."""
    assert metadata.parse_cpuinfo("processor : 0\nstepping : unknown\nCPU architecture: AArch64\n") == {
        0: {"processor": 0}
    }


def test_older_programs() -> None:
    """`lscpu` before util-linux 2.37 writes numbers as texts, and a dash for what it does not know."""
    text = '{"cpus": [{"cpu": "1", "core": "0", "l1d:l1i:l2:l3": "0:0:0:0", "online": "yes", "maxmhz": "-"}]}'
    assert metadata.parse_lscpu_e(text) == {1: {"cpu": 1, "core": 0, "l1d:l1i:l2:l3": "0:0:0:0", "online": "yes"}}


def test_without_json() -> None:
    """The table for people is read, too."""
    plain = metadata.parse_lscpu((BOARDS / "hyperthreaded/programs/lscpu").read_text())
    assert plain == metadata.parse_lscpu((BOARDS / "hyperthreaded/programs/lscpu -J").read_text())


@given(st.text() | st.text("processor:\t 0123456789.\nflagscore id"))
def test_any_cpuinfo_is_read(text: str) -> None:
    """Whatever stands there, what is read of it are metadata that keep to the schema."""
    for cpu, fields in metadata.parse_cpuinfo(text).items():
        found = {"cpuset": [cpu], "cpuinfo": fields}
        to_text(found)
        jsonschema.validate(found, SCHEMA)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["lscpu", "cpus", "cpu", "field", "data", "children", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(
    st.text(max_size=20) | JSON.map(json.dumps) | JSON.map(lambda rows: json.dumps({"cpus": [rows], "lscpu": [rows]}))
)
def test_any_output_of_lscpu_is_read_or_refused(text: str) -> None:
    """Whatever it writes becomes metadata, or is refused."""
    for parse, key in ((metadata.parse_lscpu, "lscpu"), (metadata.parse_lscpu_e, "lscpue")):
        try:
            found = parse(text)
        except Invalid:
            continue
        for each in [found] if key == "lscpu" else found.values():
            to_text({key: each})


@given(JSON, JSON)
def test_overlaying(below: object, above: object) -> None:
    """What is laid over is found there; what it does not name stays."""
    low, high = {"a": below, "b": 1}, {"a": above}
    found = metadata.overlaid(low, high)
    assert found["b"] == 1
    if not isinstance(below, dict) or not isinstance(above, dict):
        assert found["a"] is above
    else:
        a = found["a"]
        assert isinstance(a, dict) and a.keys() == below.keys() | above.keys()
