"""`edgerm doctor` on devices: every configured class, what is missing for it, and that looking changes nothing."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgerm_agent import doctor
from edgerm_agent import survey as module
from edgerm_agent.config import Config
from edgerm_agent.devices.hostfs import doors

NVIDIA = "nvidia.com/gpu"
CORE = "siemens.com/isolated_core"


def lines(data: Path, **devices: Any) -> dict[str, tuple[bool, str]]:
    """What the doctor says of devices and resources, by what it looked at."""
    found = doctor.check(msgspec.convert({"data_dir": str(data), "devices": devices}, Config))
    wanted = ("device", "shared memory", "resources")
    return {what: (well, remedy) for what, well, remedy in found if what.startswith(wanted)}


def test_every_configured_class(tmp_path: Path) -> None:
    """Each device has a line, fakes are called so, and what is not there says why; nothing is made by looking."""
    told = lines(
        tmp_path / "data",
        cpu={"fake": [{"id": "90"}]},
        gpu={"fake": [{"id": "gpu-0"}]},
        gpio={"chips": [{"path": "/dev/no-such-chip", "labels": ["plc"]}]},
        nic={"interfaces": [{"name": "nosuch0"}]},
        shm={"memories": [{"name": "looked-at", "size": "1M"}]},
        hotplug={"devices": [{"name": "scale", "kind": "serial", "serial": "no such"}]},
    )
    assert told[f"device cpu90 of {CORE} (a fake)"] == (True, "")
    assert told[f"device gpu-0 of {NVIDIA} (a fake)"] == (True, "")
    for what in ("plc of siemens.com/gpio", "nosuch0 of siemens.com/network", "scale of edgerm.io/serial"):
        well, remedy = told[f"device {what}"]
        assert (well, bool(remedy)) == (False, True), what
    assert told["shared memory looked-at of 1M (mounted at the agent's start)"][0] is (os.geteuid() == 0)
    assert not (tmp_path / "data").exists()
    assert "edgerm:looked-at" not in Path("/proc/self/mounts").read_text()


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured and has no library here says which extra to install."""
    monkeypatch.setitem(sys.modules, "gpiod", None)
    found = util.find_spec

    def without(name: str) -> Any:
        return None if name in ("pyroute2", "grpc") else found(name)

    monkeypatch.setattr(module, "find_spec", without)
    monkeypatch.setattr("edgerm_agent.devices.nic.links.find_spec", without)
    told = lines(
        tmp_path,
        gpio={"chips": [{"path": "/dev/gpiochip0"}]},
        nic={"interfaces": [{"name": "eno1"}]},
        sockets=[str(tmp_path / "plugin.sock")],
    )
    assert "pip install 'edgerm[gpio]'" in told["device plugin gpio"][1]
    assert "pip install 'edgerm[net]'" in told["device plugin nic"][1]
    assert "pip install 'edgerm[plugins]'" in told["device plugin sockets, kubelet_dir"][1]


def test_an_installed_plugin_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told why."""
    info = tmp_path / "site" / "a_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgerm.devices]\nbroken = no_such_module:create\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    well, remedy = lines(tmp_path / "data")["device plugin broken"]
    assert (well, "no_such_module" in remedy) == (False, True)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_claimable_cores_are_no_plain_cpus(tmp_path: Path) -> None:
    """CPUs that can be claimed are not counted as `cpus`."""
    everything = sorted(os.sched_getaffinity(0))
    before = next(what for what in lines(tmp_path) if what.startswith("resources"))
    assert f"cpus:{len(everything)}" in before
    told = lines(tmp_path, cpu={"isolated": str(everything[-1])})
    plain = next(what for what in told if what.startswith("resources"))
    assert f"device cpu{everything[-1]} of {CORE}" in told
    assert f"cpus:{len(everything) - 1};" in plain


def test_looking_leaves_what_an_agent_noted(tmp_path: Path) -> None:
    """Of a stopped agent's grants nothing is undone, and its notes stay."""
    notes = doors(tmp_path / "devices")("gpio").notes
    notes.put("grant f/t/l", {"chips": {"gpiochip9": []}, "boot": "another"})
    notes.put("safe gpiochip9", {"levels": {"0": 1}})
    lines(tmp_path, gpio={"chips": [{"path": "/dev/gpiochip9"}]})
    assert notes.keys() == ("grant f/t/l", "safe gpiochip9")
