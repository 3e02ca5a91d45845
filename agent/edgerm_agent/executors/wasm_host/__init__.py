"""The WASM host: one process per agent that runs modules, each task a thread with an engine of its own.

`engine.py` is the one file that names wasmtime. It speaks the keeper's protocol and shares its loop and rings.
"""
