"""For those who write frameworks: a scheduler to subclass, a driver that runs it, and the short way.

The short way:

    async with edgerm.sdk.connect("http://127.0.0.1:5050") as cluster:
        result = await cluster.run(wasm="module.wasm", args=["10"], input=b"1\\n2\\n", cpus=0.1, mem=32)
        print(result.state.name, result.output)

From code without a loop: `result = asyncio.run(main())`, or docs/how-to/synchronous.md.
"""

from edgerm.core.claims import Claim, expression
from edgerm.core.constraints import Constraint, Constraints, any_of, parse_constraint
from edgerm.core.errors import Conflict, EdgermError, Invalid, NotFound, Unavailable
from edgerm.core.scheduler import FrameworkSpec, Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk.agents import Agent
from edgerm.sdk.builds import Build
from edgerm.sdk.claimfile import read_claims
from edgerm.sdk.cluster import Cluster, connect
from edgerm.sdk.core.session import Session
from edgerm.sdk.driver import Driver, framework
from edgerm.sdk.finding import Found, find
from edgerm.sdk.handle import Result, TaskHandle
from edgerm.sdk.offered import attributes
from edgerm.sdk.operator import Operator
from edgerm.sdk.resuming import IdFile, resume, watch_tasks
from edgerm.sdk.scheduler import Scheduler
from edgerm.sdk.tasks import Task, docker_task, process_task, wasm_task

__all__ = [
    "Agent",
    "Build",
    "Claim",
    "Cluster",
    "Conflict",
    "Constraint",
    "Constraints",
    "Driver",
    "EdgermError",
    "Found",
    "FrameworkSpec",
    "IdFile",
    "Invalid",
    "NotFound",
    "Offer",
    "Operator",
    "Result",
    "Scheduler",
    "Session",
    "Status",
    "Task",
    "TaskHandle",
    "TaskState",
    "Unavailable",
    "any_of",
    "attributes",
    "connect",
    "docker_task",
    "expression",
    "find",
    "framework",
    "parse_constraint",
    "process_task",
    "read_claims",
    "resume",
    "wasm_task",
    "watch_tasks",
]
