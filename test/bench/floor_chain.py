"""The chain floor: framework → master → agent → WASM → RUNNING → master → framework, as three bare Python processes.

UDP on loopback, one datagram a step, no protocol, no checks, nothing lost and nothing retried. Master and agent each
commit one row to SQLite (write-ahead log, `synchronous=FULL`) before they pass the task on: what a durable launch
costs when nothing but the steps themselves is done. `floor_chain.py ROLE DIR [PORT]`; a role prints its port, the
framework reads a count and answers that many latencies in seconds, as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
from time import perf_counter, sleep

import wasmtime

TASK_BYTES = 200
NOOP = '(module (memory (export "memory") 1) (func (export "_start")))'
WAIT_S = 10.0


def open_socket() -> socket.socket:
    """A datagram socket on loopback, told on stdout."""
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    print(own.getsockname()[1], flush=True)
    return own


class Log:
    """One table, one row a commit."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, task BLOB NOT NULL)")

    def commit(self, task: bytes) -> None:
        """Durable on return."""
        self._db.execute("INSERT INTO row (task) VALUES (?)", (task,))


class Runner:
    """The whole life of a task in this process: store, WASI, instance, `_start`; engine, module and linker shared."""

    def __init__(self) -> None:
        self._engine = wasmtime.Engine()
        self._module = wasmtime.Module(self._engine, NOOP)
        self._linker = wasmtime.Linker(self._engine)
        self._linker.define_wasi()

    def run(self) -> None:
        """One task."""
        store = wasmtime.Store(self._engine)
        store.set_wasi(wasmtime.WasiConfig())
        entry = self._linker.instantiate(store, self._module).exports(store)["_start"]
        assert isinstance(entry, wasmtime.Func)
        entry(store)


def master(folder: str, agent_port: int) -> None:
    """Commits and passes on; what comes back from the agent goes to the framework."""
    own, log = open_socket(), Log(os.path.join(folder, "chain-master.db"))  # noqa: PTH118 - no pathlib: bare
    agent, framework = ("127.0.0.1", agent_port), None
    while True:
        data, peer = own.recvfrom(2048)
        if peer == agent:
            assert framework is not None
            own.sendto(data, framework)
        else:
            framework = peer
            log.commit(data)
            own.sendto(data, agent)


def agent(folder: str) -> None:
    """Commits, runs the task, tells."""
    own, log, runner = open_socket(), Log(os.path.join(folder, "chain-agent.db")), Runner()  # noqa: PTH118
    while True:
        data, peer = own.recvfrom(2048)
        log.commit(data)
        runner.run()
        own.sendto(b"RUNNING", peer)


def framework(master_port: int) -> None:
    """One task in flight."""
    own = open_socket()
    own.settimeout(WAIT_S)
    own.connect(("127.0.0.1", master_port))
    task = bytes(TASK_BYTES)
    for line in sys.stdin:
        taken = []
        count, pause_s = line.split()
        for _ in range(int(count)):
            sleep(float(pause_s))
            began = perf_counter()
            own.send(task)
            own.recv(2048)
            taken.append(perf_counter() - began)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["master", folder, port]:
            master(folder, int(port))
        case ["agent", folder]:
            agent(folder)
        case ["framework", port]:
            framework(int(port))
