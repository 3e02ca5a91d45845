"""The keeper: the process that parents process tasks, holds their pipes and rings, and keeps their exits.

Standard library only, and nothing of edgerm outside this package: the keeper runs with `python -I -S` and stays
small. The WASM host is a second program on the same `protocol`, `loop`, `server` and `holding`.
"""
