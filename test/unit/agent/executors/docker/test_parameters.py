"""Options of `docker run` into the engine's request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.plugin.executor import LaunchFailed
from edgerm_agent.executors.docker import parameters


def applied(*given_: tuple[str, str], privileged: bool = False) -> Any:
    """An empty request with these."""
    body: dict[str, Any] = {"Env": ["A=1"], "Labels": {}, "HostConfig": {}}
    parameters.apply(given_, body, privileged=privileged)
    return body


@pytest.mark.parametrize(
    ("key", "value", "where", "what"),
    [
        ("label", "a=b=c", ("Labels",), {"a": "b=c"}),
        ("--label", "alone", ("Labels",), {"alone": ""}),
        ("e", "A=2", ("Env",), ["A=2"]),
        ("env", "B=", ("Env",), ["A=1", "B="]),
        ("workdir", "/w", ("WorkingDir",), "/w"),
        ("entrypoint", "sh", ("Entrypoint",), ["sh"]),
        ("entrypoint", "", ("Entrypoint",), []),
        ("init", "", ("HostConfig", "Init"), True),
        ("read-only", "false", ("HostConfig", "ReadonlyRootfs"), False),
        ("tmpfs", "/t", ("HostConfig", "Tmpfs"), {"/t": ""}),
        ("ulimit", "nofile=1:2", ("HostConfig", "Ulimits"), [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        ("ulimit", "nofile=1", ("HostConfig", "Ulimits"), [{"Name": "nofile", "Soft": 1, "Hard": 1}]),
        ("shm-size", "64m", ("HostConfig", "ShmSize"), 64 << 20),
        ("cap-drop", "ALL", ("HostConfig", "CapDrop"), ["ALL"]),
        ("stop-signal", "SIGINT", ("StopSignal",), "SIGINT"),
    ],
)
def test_a_parameter_lands_where_the_engine_reads_it(
    key: str, value: str, where: tuple[str, ...], what: object
) -> None:
    """Each option means what it means to `docker run`, dashes or not, short or long."""
    found = applied((key, value))
    for name in where:
        found = found[name]
    assert found == what


@pytest.mark.parametrize("key", sorted(parameters.GIVES_RIGHTS))
def test_rights_are_the_operators_to_give(key: str) -> None:
    """An option that gives rights is refused, naming the setting, and taken where the operator allows it."""
    value = {"device": "/dev/null", "privileged": "true"}.get(key, "x")
    with pytest.raises(LaunchFailed, match=r"executors\.docker\.privileged"):
        applied((key, value))
    assert applied((key, value), privileged=True) != applied()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label", "edgerm.task=x"), ("label", "=x"), ("env", "NOVALUE"), ("env", "=x"), ("init", "maybe"),
        ("tmpfs", "relative"), ("ulimit", "nofile"), ("ulimit", "nofile=many"), ("shm-size", "64x"), ("shm-size", "-1"),
        ("cpu-shares", "1"), ("oom-score-adj", "-1000"), ("sysctl", "x"), ("volume", "/:/x"), ("", ""),
    ],
)  # fmt: skip
def test_a_bad_value_is_told(key: str, value: str) -> None:
    """A value that its option does not take, or an option that is not known, fails the launch in one line."""
    with pytest.raises(LaunchFailed) as caught:
        applied((key, value))
    assert "\n" not in str(caught.value)


@given(st.lists(st.tuples(st.sampled_from(sorted(parameters.KNOWN)) | st.text(), st.text())))
def test_no_text_does_more_than_fail_the_launch(given_: list[tuple[str, str]]) -> None:
    """Whatever a task gives is taken or refused; nothing that gives rights gets in, nor a label of ours."""
    try:
        body = applied(*given_)
    except LaunchFailed:
        return
    assert not {"Privileged", "CapAdd", "Devices", "SecurityOpt", "PidMode", "IpcMode"} & body["HostConfig"].keys()
    assert not any(name.startswith(parameters.OURS) for name in body["Labels"])


@given(st.integers(0, 10**6), st.sampled_from(["", "b", "k", "m", "g", "K", "MB", "gb"]))
def test_sizes_have_units(number: int, unit: str) -> None:
    """A size is a number and one of the units of `docker run`."""
    assert parameters.size_of(f"{number}{unit}") == number * parameters.UNITS[unit.lower().removesuffix("b")[:1]]
