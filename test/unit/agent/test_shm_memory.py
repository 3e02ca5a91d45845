"""What operators and claims may say of shared memories, and how mountinfo is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Invalid
from edgerm_agent.config import Memory as Setting
from edgerm_agent.devices.shm import memory as memories
from edgerm_agent.devices.shm.memory import GRAIN_BYTES, Memory, Wish, checked, parse_config, parse_size
from edgerm_agent.devices.shm.mounts import Mounted, parse_mountinfo

UNITS = {"": 1, "K": 1 << 10, "kib": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "gb": 1 << 30, "T": 1 << 40}


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_sizes_are_read_with_their_unit(number: int, unit: str, blank: str) -> None:
    """A size is its number times its unit, rounded up to whole 64 KiB, or refused above 16 TiB."""
    wanted = number * UNITS[unit]
    if wanted > memories.SIZE_BYTES_MAX:
        with pytest.raises(Invalid, match="at most 16T"):
            parse_size(f"{number}{blank}{unit}")
    else:
        size = parse_size(f"{number}{blank}{unit}")
        assert wanted <= size < wanted + GRAIN_BYTES
        assert size % GRAIN_BYTES == 0


@given(st.text())
def test_no_text_breaks_the_reader_of_sizes(text: str) -> None:
    """Any text is a size or refused with words."""
    try:
        assert parse_size(text) > 0
    except Invalid as error:
        assert "such as 64M" in str(error)


@pytest.mark.parametrize("text", ["", "0", "M", "-1M", "64 %", "50%", "1.5G", "64X", "²"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Percentages, fractions, signs and nothing are no sizes."""
    with pytest.raises(Invalid, match="such as 64M"):
        parse_size(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b"}, r"m\.name = 'a b'"),
        ({"name": ""}, r"m\.name = ''"),
        ({"size": "much"}, "m.size 'much'"),
        ({"labels": [""]}, "is no label"),
        ({"labels": ["x"] * 65}, "at most 64 labels"),
        ({"permissions": {"app": ["rx"]}}, r"'app' = \['rx'\]"),
        ({"permissions": {"": ["rw"]}}, "write some of 'ro' and 'rw'"),
    ],
)
def test_a_wrong_memory_is_refused(fields: dict[str, object], words: str) -> None:
    """What is wrong with an operator's memory is told with its place and value."""
    good: dict[str, object] = {"name": "frames", "size": "64M", "labels": ["a"], "permissions": {"*": ["rw"]}}
    with pytest.raises(Invalid, match=words):
        checked("m", **{**good, **fields})  # type: ignore[arg-type]


def test_names_stand_once() -> None:
    """Two memories of one name, or more than 64 of them, are refused."""
    with pytest.raises(Invalid, match="'frames' stands twice"):
        memories.check_all([Memory("frames", GRAIN_BYTES)] * 2)
    with pytest.raises(Invalid, match="at most 64"):
        memories.check_all(Memory(f"m{number}", GRAIN_BYTES) for number in range(65))


@pytest.mark.parametrize(
    ("permissions", "app", "may"),
    [
        ({"*": ("rw",)}, "a", "rw"),
        ({"*": ("rw",), "a": ("ro",)}, "a", "ro"),
        ({"*": ("ro",), "a": ("ro", "rw")}, "a", "rw"),
        ({"*": ("rw",), "a": ()}, "a", ""),
        ({"b": ("rw",)}, "a", ""),
        ({}, "a", ""),
    ],
)
def test_an_entry_of_its_own_goes_before_the_star(permissions: dict[str, tuple[str, ...]], app: str, may: str) -> None:
    """An app may what its entry says, else what `*` says, else nothing."""
    assert checked("m", "n", "1M", (), permissions).allows(app) == may


def test_a_memory_survives_its_note() -> None:
    """What is noted of a memory makes the same memory again."""
    memory = checked("m", "n", "1M", ("b", "a"), {"*": ("rw", "ro"), "app": ()})
    assert memories.from_note("n", memories.to_note(memory)) == memory


def test_the_default_permission_is_the_operators_default() -> None:
    """A memory without permissions in the file may be read and written by any app."""
    assert checked("m", "n", "1M", (), Setting("n", "1M").permissions).allows("whoever") == "rw"


@pytest.mark.parametrize(
    ("config", "wish"),
    [
        ({}, Wish()),
        ({"id": "in", "posix_mount": True}, Wish("in", posix_mount=True)),
        ({"permissions": ["ro"]}, Wish(read_only=True)),
        ({"permissions": ["ro", "rw"]}, Wish()),
    ],
)
def test_a_claims_config(config: dict[str, object], wish: Wish) -> None:
    """`permissions` is `rw` unless it says `ro` alone; `id` is empty and `posix_mount` false unless they are said."""
    assert parse_config("c", config) == wish


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"permissions": []}, r"claim 'c': permissions = \[\]"),
        ({"permissions": ["r"]}, "claim 'c': permissions"),
        ({"permissions": "ro"}, "claim 'c': permissions"),
        ({"posix_mount": "true"}, "claim 'c': posix_mount = 'true'"),
        ({"posix_mount": 1}, "claim 'c': posix_mount = 1"),
        ({"id": "a,b"}, "claim 'c': id = 'a,b'"),
        ({"id": 1}, "claim 'c': id = 1"),
    ],
)
def test_a_wrong_config_is_refused(config: dict[str, object], words: str) -> None:
    """The error names the claim, the key and the value."""
    with pytest.raises(Invalid, match=words):
        parse_config("c", config)


MOUNTINFO = r"""22 1 0:21 / /proc rw,nosuid - proc proc rw
30 23 0:26 / /dev/iedge/shm0 rw,nosuid,nodev,noexec shared:9 master:1 - tmpfs edgerm:frames rw,size=65536k,inode64
31 23 0:27 / /dev/iedge/shm1 rw,nosuid - tmpfs edgerm:a\040b rw
32 23 0:28 / /dev/iedge/shm1 rw - ext4 /dev/sda1 rw,errors=remount-ro
33 23 0:29 / /dev/iedgeling rw - tmpfs edgerm:other rw,size=64k
34 cut
"""


def test_mountinfo_is_read() -> None:
    """Mounts below the directory alone are found, with names unescaped; of two at one place the one on top."""
    assert parse_mountinfo(MOUNTINFO, "/dev/iedge") == {
        "/dev/iedge/shm0": Mounted("tmpfs", "edgerm:frames", 64 << 20),
        "/dev/iedge/shm1": Mounted("ext4", "/dev/sda1"),
    }
    assert Mounted("tmpfs", "edgerm:frames").memory == "frames"
    assert Mounted("ext4", "edgerm:frames").memory == Mounted("tmpfs", "tmpfs").memory == ""


@given(st.text(alphabet="0123456789 -/\\devigshm,=k:tmpfs\n", max_size=200))
def test_no_text_breaks_the_reader_of_mounts(text: str) -> None:
    """Whatever mountinfo says, only places below the directory come out."""
    assert all(place.startswith("/dev/iedge/") for place in parse_mountinfo(text, "/dev/iedge"))
