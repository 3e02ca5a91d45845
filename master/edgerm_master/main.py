"""Composition: settings to a running master, and its end.

What lives here: who is given what, in which order things start and stop. What does not: what any of them does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerm import logs
from edgerm.core.blobs import Digest
from edgerm.core.errors import EdgermError, Invalid
from edgerm.store.blobs import BlobStore
from edgerm.store.datadir import DataDir
from edgerm.store.sqlite import SqliteStore
from edgerm.wire import patterns
from edgerm_master import config
from edgerm_master.api.access import Access, Action, Principal
from edgerm_master.api.agent import AgentFace
from edgerm_master.api.artifacts import ArtifactFace
from edgerm_master.api.blobs import Blobs
from edgerm_master.api.change_log import ChangeLog
from edgerm_master.api.doorbells import Doorbells
from edgerm_master.api.http import Server
from edgerm_master.api.look import LookFace
from edgerm_master.api.metrics import Metrics
from edgerm_master.api.operator import OperatorFace
from edgerm_master.api.operator_stream import OperatorStreams
from edgerm_master.api.own_calls import OwnFace
from edgerm_master.api.queries import Queries
from edgerm_master.api.scheduler import SchedulerFace
from edgerm_master.api.streams import Streams
from edgerm_master.api.upstreams import Upstreams
from edgerm_master.api.views import Views
from edgerm_master.config import Config
from edgerm_master.core.master import Master, Settings
from edgerm_master.registry import Registry
from edgerm_master.shell import Shell

if TYPE_CHECKING:
    from edgerm.transport.coap_server import CoapServer

log = logs.get("master.main")


@dataclass(frozen=True, slots=True)
class Served:
    """A master that serves."""

    url: str
    shell: Shell
    coap_url: str | None  # None: no CoAP


def main(config_file: Path | None, flags: Mapping[str, Any], lifeline: int | None) -> int:
    """Run a master until it is told to stop; the exit status: 0 stopped, 1 failed, 2 the settings are wrong."""
    try:
        settings = config.load(config_file, flags)
    except Invalid as error:
        return _say(error, 2)
    logs.configure(settings.log.form, settings.log.level)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an agent over HTTP has two connections
    try:
        asyncio.run(_run(settings, lifeline))
    except EdgermError as error:
        return _say(error, 1)
    except Exception as error:
        return _say(f"a fault of the master: {type(error).__name__}: {error}", 1)
    return 0


def _say(why: object, status: int) -> int:
    sys.stderr.write(f"edgerm master: {why}\n")
    return status


async def _run(settings: Config, lifeline: int | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        _watch(lifeline, stop.set)
    coap = settings.coap_address
    if settings.insecure and not (settings.address.loopback and (coap is None or coap.loopback)):
        log.warning("INSECURE: whoever reaches this address may do everything", http=settings.http, coap=settings.coap)
    async with serving(settings) as served:
        gc.freeze()  # what was taken over stays: a collection would hold all else up for as long as there are tasks
        sys.stdout.write(f"ready http={served.url}" + (f" coap={served.coap_url}\n" if served.coap_url else "\n"))
        sys.stdout.flush()
        served.shell.failed.add_done_callback(lambda _: stop.set())
        await stop.wait()
        if served.shell.failed.done():
            served.shell.failed.result()
        log.info("stopping")


def _watch(descriptor: int, stop: Callable[[], None]) -> None:
    """Call `stop` when the other end of this pipe is closed."""

    def readable() -> None:
        if not os.read(descriptor, 4096):
            asyncio.get_running_loop().remove_reader(descriptor)
            stop()

    try:
        asyncio.get_running_loop().add_reader(descriptor, readable)
    except (OSError, ValueError) as error:
        raise Invalid(f"--lifeline {descriptor} is no inherited pipe: {error}") from None


@asynccontextmanager
async def serving(settings: Config) -> AsyncIterator[Served]:
    """A master that serves within the block; on leaving it everything that was accepted is durable."""
    async with AsyncExitStack() as stack:
        data = DataDir.open(settings.data_path, "master")
        stack.callback(data.close)
        store = SqliteStore(data.path / "registry.db")
        stack.callback(store.close)
        registry = Registry(store)
        core = Master(secrets.token_hex(8), secrets.token_bytes(32), _core_settings(settings), patterns.matches)
        metrics = Metrics(core)
        shell = Shell(core, metrics.timed(registry.write))
        _recover(core, registry, shell)
        limits = settings.artifacts
        blob_store = BlobStore(data.path / "artifacts", limits.total_bytes, limits.blob_bytes)
        blobs = Blobs(blob_store, lambda: _referenced(core))
        stack.callback(blobs.close)
        access, doorbells = Access(settings.insecure), Doorbells(shell)
        changes = ChangeLog(shell)
        server, end_streams = _faces(settings, shell, blobs, access, doorbells, metrics)
        stack.push_async_callback(server.close)
        coap, coap_url = settings.coap_address, None
        if coap is not None:
            coap_server = _coap_server(shell, blobs, access, doorbells)
            stack.push_async_callback(coap_server.close)
        stack.callback(end_streams)  # after the shell: a stop of the master is no stop of its frameworks
        stack.push_async_callback(shell.close)
        url = await server.listen(settings.address.host, settings.address.port)
        if coap is not None:
            coap_url = await coap_server.listen(coap.host, coap.port)
        for work in (blobs.evict_for_ever(), metrics.watch_loop()):
            stack.callback(asyncio.create_task(work).cancel)
        shell.start()
        changes.begin(settings.log.level)
        log.info("serving", http=url, coap=coap_url, data_dir=str(data.path), run_id=core.world.run_id)
        yield Served(url, shell, coap_url)


def _recover(core: Master, registry: Registry, shell: Shell) -> None:
    """Take over what is stored. None of it is rubbish: to look for some meanwhile is lost time."""
    gc.disable()
    try:
        core.recover(registry.load(), shell.now())
    finally:
        gc.enable()


def _core_settings(settings: Config) -> Settings:
    return Settings(
        beat_interval_s=settings.agents.beat_interval_s,
        missed_beats_max=settings.agents.missed_beats,
        offer_timeout_s=settings.offer_timeout_s,
        recovery_s=settings.recovery_s,
    )


def _referenced(core: Master) -> set[Digest]:
    return {blob.digest for task in core.tasks.values() if task.live for blob in task.record.task.needs}


def _faces(
    settings: Config, shell: Shell, blobs: Blobs, access: Access, doorbells: Doorbells, metrics: Metrics
) -> tuple[Server, Callable[[], None]]:
    views = Views(shell)
    agent_streams = Streams(shell)
    metrics.count_streams("agent", agent_streams.count)
    upstreams = Upstreams(agent_streams, settings.agents.coap_log_bytes_s)
    operators = OperatorStreams(shell, views, metrics, settings.limits.stream_bytes)
    queries = Queries(shell, views, metrics, settings)
    scheduler = SchedulerFace(shell, blobs, metrics, settings.limits)
    faces = (
        scheduler,
        AgentFace(shell, doorbells),
        ArtifactFace(blobs),
        OperatorFace(shell, access, queries, operators, metrics, settings.limits),
        OwnFace(shell, access, upstreams, views, metrics, settings.limits),
        LookFace(metrics),
    )
    server = Server((route for face in faces for route in face.routes()), access)

    def end_streams() -> None:
        scheduler.close()
        operators.close()
        doorbells.close()

    return server, end_streams


def _coap_server(shell: Shell, blobs: Blobs, access: Access, doorbells: Doorbells) -> CoapServer[Action]:
    """Who does without CoAP does without aiocoap."""
    from edgerm.transport.coap_server import CoapServer  # noqa: PLC0415
    from edgerm_master.api.coap import CoapFace  # noqa: PLC0415

    def authorize(peer: str, action: Action) -> None:
        access.authorize(Principal("", peer), action)

    return CoapServer(CoapFace(shell, doorbells, blobs).routes(), authorize, Action.LOOK)
