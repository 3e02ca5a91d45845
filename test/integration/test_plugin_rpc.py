"""Promises of device plugins in processes of their own: ours behind a socket, and those written for Kubernetes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import devices, task_keys

from edgerm.core.claims import Granted
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict, EdgermError, Invalid, Unavailable
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import DeviceNode, Given, GpioChip, Grant, Mount, NotClean, Setup
from edgerm.plugin_rpc import RemotePlugin, serving
from edgerm.plugin_rpc.codec import SERVICE, grant_of, grant_to_message, setup_of, setup_to_message
from edgerm.testing.devices import NAME, FakeDevices
from edgerm.transport.grpc_unix import GrpcClient
from edgerm.wire.v1 import kubelet_pb2 as pb
from edgerm.wire.v1 import plugin_pb2
from edgerm_agent.config import Devices as Settings
from edgerm_agent.core.effects import Choose
from edgerm_agent.core.events import Chosen, Event, Inventoried
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.devices import outside
from edgerm_agent.devices.kubelet import REGISTRATION, SOCKET, Kubelet, KubeletPlugin, check
from edgerm_agent.devices.manager import Devices

PLUGIN = Path(__file__).parents[1] / "support" / "kubelet_plugin.py"
BOARD = "vendor.example/board"
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


# --- ours -------------------------------------------------------------------------------------------------------


def grant_on(*ids: str, config: dict[str, object] | None = None) -> Grant:
    devices = tuple(Device(NAME, each) for each in ids)
    return Grant(KEY, NAME, (Given("mine", config or {}, devices),), "docker", "app", (2, 3), "/run/ns")


async def test_grants_and_setups_cross_the_border_whole() -> None:
    """Every field of a grant and of a setup is the same on the other side."""
    grant = grant_on("one", config={"a": [1, {"b": "c"}]})
    assert grant_of(grant_to_message(grant)) == grant
    setup = Setup(
        env=(("A", "1"), ("B", "2")),
        mounts=(Mount("/in", "/out", True, False),),
        nodes=(DeviceNode("/dev/null", "/dev/x", "rw"),),
        cpus=(2, 3),
        network="/run/ns",
        chips=(GpioChip("in", "/dev/gpiochip0"),),
        annotations=(("k", "v"),),
        cdi_names=("a/b=c",),
        runtime="nvidia",
    )
    assert setup_of(setup_to_message(setup)) == setup


texts = st.text(st.characters(codec="utf-8"), max_size=20)
configs = st.dictionaries(texts, st.recursive(texts | st.integers(-(2**40), 2**40), st.lists, max_leaves=4), max_size=3)
givens = st.builds(Given, texts, configs, st.lists(devices, max_size=3, unique_by=lambda each: each.id).map(tuple))
cpus = st.lists(st.integers(0, 4096), max_size=4).map(tuple)
grants = st.builds(Grant, task_keys, texts, st.lists(givens, max_size=3).map(tuple), texts, texts, cpus, texts)
pairs = st.dictionaries(texts, texts, max_size=3).map(lambda found: tuple(sorted(found.items())))
setups = st.builds(
    Setup,
    env=pairs,
    mounts=st.lists(st.builds(Mount, texts, texts, st.booleans(), st.booleans()), max_size=3).map(tuple),
    nodes=st.lists(st.builds(DeviceNode, texts, texts, texts), max_size=3).map(tuple),
    cpus=cpus,
    network=texts,
    chips=st.lists(st.builds(GpioChip, texts, texts), max_size=2).map(tuple),
    annotations=pairs,
    cdi_names=st.lists(texts, max_size=3).map(tuple),
    runtime=texts,
)


@given(grants, setups)
def test_whatever_crosses_the_border_is_the_same(grant: Grant, setup: Setup) -> None:
    """Any grant and any setup come out of their bytes as they went in."""
    assert grant_of(plugin_pb2.Grant.FromString(grant_to_message(grant).SerializeToString())) == grant
    assert setup_of(plugin_pb2.Setup.FromString(setup_to_message(setup).SerializeToString())) == setup


@given(st.binary(max_size=60))
def test_a_config_that_is_none(data: bytes) -> None:
    """A grant whose config is no JSON object is refused as such, and nothing else comes out."""
    message = plugin_pb2.Grant(given=[plugin_pb2.Given(claim="mine", config=data.decode(errors="replace"))])
    try:
        [found] = grant_of(message).given
    except Invalid as error:
        assert "claim 'mine': its config is no" in str(error)
    else:
        assert isinstance(found.config, dict)


async def test_a_call_that_the_plugin_cancels_is_an_error(tmp_path: Path) -> None:
    """A plugin that answers CANCELLED fails; the agent does not take that for its own end."""

    async def leave(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.CANCELLED, "I am leaving")

    server = grpc.aio.server()
    calls = {
        "Prepare": grpc.unary_unary_rpc_method_handler(leave),
        "Watch": grpc.unary_stream_rpc_method_handler(leave),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, calls),))
    server.add_insecure_port(f"unix:{tmp_path}/fake.sock")
    await server.start()
    client = GrpcClient(f"{tmp_path}/fake.sock", SERVICE)
    with pytest.raises(Unavailable, match="does not answer Prepare"):
        await client.call("Prepare", pb.Empty(), pb.Empty, 5.0)
    with pytest.raises(Unavailable, match="does not answer Watch"):
        await anext(client.stream("Watch", pb.Empty(), pb.Empty))
    await server.stop(0)


async def test_a_prepare_outlives_a_watch_that_fails(tmp_path: Path) -> None:
    """What is under way when a plugin's list ends comes to its end."""
    fake, remote = FakeDevices(), RemotePlugin("far", str(tmp_path / "fake.sock"))
    fake.failures.hold = asyncio.Event()
    async with serving(fake, str(tmp_path / "fake.sock")):
        watching = aiter(remote.watch())
        await anext(watching)
        preparing = asyncio.create_task(remote.prepare(grant_on("one")))
        async with asyncio.timeout(20):
            while not fake.calls:
                await asyncio.sleep(0.01)
        fake.fail(OSError("the bus is gone"))
        with pytest.raises(Unavailable, match="the bus is gone"):
            await anext(watching)
        fake.failures.hold.set()
        assert dict((await preparing).env) == {"FAKE_DEVICES": "one"}


async def test_a_plugin_behind_a_socket_is_the_plugin(tmp_path: Path) -> None:
    """Inventories, setups, preferences and errors come through as the plugin gives them."""
    fake, path = FakeDevices(), str(tmp_path / "fake.sock")
    remote = RemotePlugin("far", path)
    async with serving(fake, path):
        watching = aiter(remote.watch())
        assert (await anext(watching)).devices == fake.inventory.devices
        fake.set_problem("one", "it smokes")
        assert (await anext(watching)).devices[0].problem == "it smokes"
        assert dict((await remote.prepare(grant_on("two"))).env) == {"FAKE_DEVICES": "two"}
        assert list(fake.held.values()) == [("two",)]
        with pytest.raises(Invalid, match="is no text"):
            await remote.prepare(grant_on("two", config={"key": 1}))
        assert await remote.choose(NAME, ("two", "one"), 1) == ("one",)
        fake.failures.release = NotClean("still warm")
        with pytest.raises(NotClean, match="still warm"):
            await remote.release(grant_on("two"))
        fake.failures.release = None
        await remote.release(grant_on("two"))
        assert not fake.held
    with pytest.raises(Unavailable, match="does not answer Watch: nobody serves it"):
        await anext(watching)


async def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    """While nobody serves the socket the error names it."""
    with pytest.raises(Unavailable, match=r"nobody\.sock does not answer"):
        await RemotePlugin("far", str(tmp_path / "nobody.sock")).prepare(grant_on("one"))


async def test_two_cannot_serve_one_socket(tmp_path: Path) -> None:
    """A socket that is served is not taken over, one that is left over is."""
    path = str(tmp_path / "fake.sock")
    async with serving(FakeDevices(), path):
        with pytest.raises(Conflict, match="served by another process"):
            async with serving(FakeDevices(), path):
                pass
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    async with serving(FakeDevices(), path):
        assert await RemotePlugin("far", path).choose(NAME, ("one",), 1) == ("one",)


# --- the kubelet's ----------------------------------------------------------------------------------------------


class Box:
    """A kubelet of ours with its plugins, and all that the core was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices = Devices()
        self.heard: asyncio.Queue[Event] = asyncio.Queue()
        self.kubelet: Kubelet | None = None

    async def begin(self) -> None:
        self.devices = Devices()
        self.devices.begin(self.heard.put_nowait)
        self.kubelet = await Kubelet.listen(str(self.folder), self.devices.add)

    async def end(self) -> None:
        if self.kubelet is not None:
            await self.kubelet.close()
        await self.devices.close()

    async def inventory(self) -> Inventory:
        event = await self.heard.get()
        assert isinstance(event, Inventoried)
        return event.inventory


class Stranger:
    """A plugin written for Kubernetes, in a process of its own."""

    def __init__(self, folder: Path, *flags: str, endpoint: str = "board.sock") -> None:
        self.process = subprocess.Popen(
            [sys.executable, PLUGIN, folder, BOARD, endpoint, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    async def says(self) -> str:
        assert self.process.stdout is not None
        line: bytes = await asyncio.to_thread(self.process.stdout.readline)
        return line.decode().strip()

    def told(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    found = Box(tmp_path)
    await found.begin()
    yield found
    await found.end()


def record(*ids: str) -> GrantRecord:
    return GrantRecord(KEY, BOARD, (Granted(BOARD, BOARD, ids),), "docker")


async def test_a_plugin_for_kubernetes_runs_unmodified(box: Box) -> None:
    """It registers by itself, is claimable at once, tells health and topology, and allocates all that the API has."""
    plugin = Stranger(box.folder, "--pre-start", "--prefers")
    try:
        assert await plugin.says() == "registered"
        first = await box.inventory()
        assert first.classes == (DeviceClass(BOARD, chooses=True),)
        assert [(device.id, device.problem, device.numa_nodes) for device in first.devices] == [
            ("one", "", (0,)),
            ("two", "", (1,)),
            ("three", "", (0,)),
        ]
        plugin.told("ill two")
        assert [device.problem for device in (await box.inventory()).devices] == ["", "its plugin says Unhealthy", ""]
        box.devices.choose(Choose(KEY, record("one", "three"), ("one", "three")))
        assert await box.heard.get() == Chosen(KEY, BOARD, {BOARD: ("three", "one")})
        assert await plugin.says() == "prefer one three 2"
        setup = await box.devices.prepare(KEY, [record("three", "one")], None)
        assert [await plugin.says(), await plugin.says()] == ["allocate one,three", "pre-start one,three"]
        assert setup == Setup(
            env=(("BOARDS", "one,three"),),
            mounts=(Mount("/opt/boards", "/usr/share", True, False),),
            nodes=(DeviceNode("/dev/null", "/dev/board", "rw"),),
            annotations=(("vendor.example/boards", "one,three"),),
            cdi_names=("vendor.example/board=one", "vendor.example/board=three"),
        )
    finally:
        plugin.end()


async def test_a_plugin_that_goes_and_comes_again(box: Box) -> None:
    """When it goes its class says so by name; when it registers again its devices are there again."""
    plugin = Stranger(box.folder)
    try:
        await plugin.says()
        assert len((await box.inventory()).devices) == 3
    finally:
        plugin.end()
    away = await box.inventory()
    assert away.devices == ()
    assert away.classes[0].name == BOARD
    assert "its plugin failed" in away.classes[0].problem
    with pytest.raises(Conflict, match=BOARD):
        await box.devices.prepare(KEY, [record("one")], None)
    plugin = Stranger(box.folder)
    try:
        await plugin.says()
        assert len((await box.inventory()).devices) == 3
    finally:
        plugin.end()


async def test_plugins_register_again_with_a_new_agent(box: Box) -> None:
    """kubelet.sock is made anew at each start, also where a killed agent left one: plugins notice that and register."""
    plugin = Stranger(box.folder)
    try:
        assert await plugin.says() == "registered"
        await box.inventory()
        await box.end()
        left = socket.socket(socket.AF_UNIX)  # as after kill -9: a socket that nobody serves
        (box.folder / SOCKET).unlink(missing_ok=True)
        left.bind(str(box.folder / SOCKET))
        left.close()
        box.heard = asyncio.Queue()
        await box.begin()
        assert await plugin.says() == "registered"
        assert len((await box.inventory()).devices) == 3
    finally:
        plugin.end()


async def test_a_living_kubelet_keeps_its_socket(box: Box) -> None:
    """Where a process serves kubelet.sock already, that is said and nothing is taken over."""
    with pytest.raises(Conflict, match=r"kubelet\.sock is served by another process"):
        await Kubelet.listen(str(box.folder), lambda plugin: None)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.RegisterRequest(version="v1alpha", endpoint="a.sock", resource_name=BOARD), "v1alpha"),
        (pb.RegisterRequest(version="v1beta1", endpoint="", resource_name=BOARD), "endpoint ''"),
        (pb.RegisterRequest(version="v1beta1", endpoint="../a.sock", resource_name=BOARD), "../a.sock"),
        (pb.RegisterRequest(version="v1beta1", endpoint="..", resource_name=BOARD), "endpoint '..'"),
        (pb.RegisterRequest(version="v1beta1", endpoint="kubelet.sock", resource_name=BOARD), "kubelet.sock"),
        (pb.RegisterRequest(version="v1beta1", endpoint="a.sock", resource_name=""), "resource name ''"),
        (pb.RegisterRequest(version="v1beta1", endpoint="a.sock", resource_name="cpus"), "cpus"),
        (pb.RegisterRequest(version="v1beta1", endpoint="a.sock", resource_name="shm"), "shm"),  # a plugin of ours
    ],
)
def test_what_cannot_be_registered_is_refused(request_: pb.RegisterRequest, words: str) -> None:
    """A wrong version, an endpoint elsewhere, and a name that is none are refused with the value."""
    with pytest.raises(Invalid, match=words.replace(".", r"\.")):
        check(request_)


async def test_a_refusal_reaches_the_plugin(box: Box) -> None:
    """The plugin gets INVALID_ARGUMENT with the reason."""
    async with grpc.aio.insecure_channel(f"unix:{box.folder / SOCKET}") as channel:
        asked: Any = channel.unary_unary(
            "/v1beta1.Registration/Register", lambda message: message.SerializeToString(), pb.Empty.FromString
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked(pb.RegisterRequest(version="v1beta1", endpoint="../x", resource_name=BOARD))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'../x'" in (caught.value.details() or "")


async def test_a_class_of_another_plugin_cannot_be_registered(tmp_path: Path) -> None:
    """Whoever registers what another plugin carries is told by whom, and that one is not touched."""
    mine = FakeDevices(Inventory((DeviceClass(BOARD),), (Device(BOARD, "mine"),)))
    async with AsyncExitStack() as stack:
        found = Devices()
        stack.push_async_callback(found.close)
        found.add(mine)
        await found.first()
        await outside.listen(Settings(kubelet_dir=str(tmp_path)), found, stack)
        client = GrpcClient(str(tmp_path / SOCKET), REGISTRATION)
        request = pb.RegisterRequest(version="v1beta1", endpoint="x.sock", resource_name=BOARD)
        with pytest.raises(Conflict, match=f"{BOARD} is carried by device plugin fake"):
            await client.call("Register", request, pb.Empty, 5.0)
        assert found.plugin("fake") is mine
        assert found.find(BOARD)[0].inventory.devices == mine.inventory.devices


async def test_what_a_plugin_lists_that_cannot_be(tmp_path: Path) -> None:
    """A list with an id that is none, or with too many, is the class's problem; a device too many breaks nothing."""
    listed = asyncio.Queue[list[str]]()

    async def lists(request: Any, context: Any) -> AsyncIterator[bytes]:
        while True:
            ids = await listed.get()
            yield pb.ListAndWatchResponse(devices=[pb.Device(ID=each) for each in ids]).SerializeToString()

    async def options(request: Any, context: Any) -> bytes:
        return b""

    server = grpc.aio.server()
    calls = {
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(lists),
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(options),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", calls),))
    server.add_insecure_port(f"unix:{tmp_path}/board.sock")
    await server.start()
    box = Box(tmp_path)
    box.devices.begin(box.heard.put_nowait)
    box.devices.add(KubeletPlugin(BOARD, f"{tmp_path}/board.sock"), (BOARD,))
    for ids, words in (
        (["a b"], f"device 'a b' of '{BOARD}': an id is 1 to 255 printable"),
        ([f"d{number}" for number in range(10_000)], "10000 devices; at most"),
    ):
        listed.put_nowait(ids)
        found = await box.inventory()
        assert (found.devices, [each.name for each in found.classes]) == ((), [BOARD])
        assert words in found.classes[0].problem
    listed.put_nowait(["one"])
    assert [each.problem for each in (await box.inventory()).devices] == ["its plugin says nothing"]
    await box.devices.close()
    await server.stop(0)


async def test_a_node_that_is_none_is_not_given(tmp_path: Path) -> None:
    """What a plugin calls a device node, and is none, is refused with its class and the path."""

    async def allocate(request: Any, context: Any) -> bytes:
        wrong = pb.DeviceSpec(host_path=str(tmp_path / "none"), container_path="/dev/x", permissions="rw")
        answer = pb.AllocateResponse(container_responses=[pb.ContainerAllocateResponse(devices=[wrong])])
        return answer.SerializeToString()

    server = grpc.aio.server()
    calls = {"Allocate": grpc.unary_unary_rpc_method_handler(allocate)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", calls),))
    server.add_insecure_port(f"unix:{tmp_path}/board.sock")
    await server.start()
    with pytest.raises(Conflict, match=f"{BOARD}: what its plugin gives cannot be: .*none"):
        await KubeletPlugin(BOARD, f"{tmp_path}/board.sock").prepare(grant_on("one"))
    await server.stop(0)


async def test_a_call_that_nobody_knows_is_told(box: Box) -> None:
    """What the API does not have is refused, and the socket goes on."""
    client = GrpcClient(str(box.folder / SOCKET), "v1beta1.Registration")
    with pytest.raises(EdgermError, match=r"(?i)method not found"):
        await client.call("Unheard", pb.Empty(), pb.Empty, 5.0)
