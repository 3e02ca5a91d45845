"""The WASM host as a program: `python -I -m edgerm_agent.executors.wasm_host [--join FILE]… DIR NAME …`.

Each FILE is a `cgroup.procs` that the host joins at its start, so that its threads may have groups below it. The rest
is told in `keeper/program.py`.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from edgerm_agent.executors.wasm_host.code_cache import CodeCache
from edgerm_agent.executors.wasm_host.engine import compile_module, detect_settings
from edgerm_agent.executors.wasm_host.tasks import WasmHolding
from edgerm_agent.keeper import program
from edgerm_agent.keeper.loop import Loop

CODE_FOLDER = "wasm-code"


def make(loop: Loop) -> WasmHolding:
    """The host, with its cache in the current directory, which is the agent's data directory by then."""
    settings = detect_settings()
    cache = CodeCache(Path(CODE_FOLDER).absolute(), settings.tag, lambda wasm: compile_module(settings, wasm))
    return WasmHolding(loop, settings, cache)


def main() -> None:
    """Run, and leave without waiting for threads that do not end."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(0o022)
    argv = sys.argv[1:]
    while argv[0] == "--join":
        Path(argv[1]).write_text("0")
        del argv[:2]
    code = program.run(argv, make)
    sys.stderr.flush()
    os._exit(code)


main()
