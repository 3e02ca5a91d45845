"""The docker executor: tasks are containers of a Docker engine, which outlives the agent.

`engine` alone names the `docker` package; `container`, `parameters` and `progress` are pure translation.
"""
