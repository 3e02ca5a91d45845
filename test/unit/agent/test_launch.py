"""From a TaskInfo to a launch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.blobs import Digest, digest_of
from edgerm.core.errors import Forbidden, Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.resources import parse
from edgerm.plugin.executor import LaunchSpec, Limits
from edgerm.wire.codec.tasks import task_spec_from_bytes
from edgerm.wire.v1.tasks_pb2 import CommandInfo, ContainerInfo, TaskInfo
from edgerm_agent.containers import Allowed
from edgerm_agent.launch import PATH, Users, environment, launch_spec, limits_of, ports_text, program_of

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
AGENT = AgentId("0" * 32)
NOBODY = Users()
NOTHING = Allowed()
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def path_of(digest: Digest) -> Path:
    """A path as a blob store would give it."""
    return Path("/blobs") / digest


def made(
    message: TaskInfo, users: Users = NOBODY, allowed: Allowed = NOTHING, sandbox: Path = Path("/box")
) -> LaunchSpec:
    """The launch of a message."""
    message.name = message.name or "task"
    message.task_id.value, message.agent_id.value = "t", AGENT
    info = message.SerializeToString()
    task = task_spec_from_bytes(info)
    return launch_spec(
        KEY, task, info, agent_id=AGENT, sandbox=sandbox, blob_path=path_of, users=users, allowed=allowed
    )


@pytest.mark.parametrize(
    ("command", "program", "argv"),
    [
        (CommandInfo(value="a | b"), "/bin/sh", ("/bin/sh", "-c", "a | b")),
        (CommandInfo(shell=False, value="/bin/a"), "/bin/a", ("/bin/a",)),
        (CommandInfo(shell=False, value="/bin/a", arguments=["b", "-x"]), "/bin/a", ("b", "-x")),
        (CommandInfo(shell=False, value="/bin/sh", arguments=["-sh"]), "/bin/sh", ("-sh",)),
        (CommandInfo(shell=False, value="a", arguments=["b", ""]), "a", ("b", "")),
        (CommandInfo(shell=False, arguments=["a", "-x"]), "a", ("a", "-x")),
    ],
)
def test_program_and_argv(command: CommandInfo, program: str, argv: tuple[str, ...]) -> None:
    """A shell's command line, or the program with arguments as they are, argv[0] among them."""
    assert program_of(command) == (program, argv)
    message = TaskInfo(command=command)
    assert (made(message).program, made(message).argv) == (program, argv)


@pytest.mark.parametrize(
    "command",
    [
        CommandInfo(),
        CommandInfo(shell=False),
        CommandInfo(shell=False, arguments=[""]),
        CommandInfo(shell=False, value="a", arguments=["", "b"]),
    ],
)
def test_nothing_to_run(command: CommandInfo) -> None:
    """A command without a program, or whose program would have no name, is refused."""
    with pytest.raises(Invalid):
        program_of(command)


@given(
    st.dictionaries(
        st.from_regex("[A-Z_]{1,10}", fullmatch=True), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    )
)
def test_environment(variables: dict[str, str]) -> None:
    """The command's variables win over ours, but for EDGERM_*; a process has a PATH in any case."""
    command = CommandInfo(value="x")
    for name, value in variables.items():
        command.environment.variables.add(name=name, value=value)
    command.environment.variables.add(name="EDGERM_AGENT_ID", value="another")
    made_ = environment(KEY, AGENT, parse("ports:[1-2]"), command)
    assert made_.get("PATH") == variables.get("PATH")
    assert dict(made(TaskInfo(command=command)).env)["PATH"] == variables.get("PATH", PATH)
    assert (made_["EDGERM_AGENT_ID"], made_["EDGERM_PORTS"], made_["EDGERM_TASK_ID"]) == (AGENT, "1-2", "t")
    assert {name: made_[name] for name in variables} == variables


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("A", "x\0y")])
def test_a_bad_environment(name: str, value: str) -> None:
    """A variable that the kernel could not take is refused."""
    command = CommandInfo(value="x")
    command.environment.variables.add(name=name, value=value)
    with pytest.raises(Invalid):
        environment(KEY, AGENT, parse(""), command)


def test_ports() -> None:
    """Ranges with a dash, a single port without."""
    assert ports_text(parse("ports:[31005-31005,31000-31001]")) == "31000-31001,31005"
    assert ports_text(parse("cpus:1")) == ""


def test_limits() -> None:
    """Thousandths of CPUs, mebibytes of memory and disk; what was not asked for is not limited."""
    assert limits_of(parse("cpus:0.5;mem:1.5;disk:2")) == Limits(500, 3 << 19, 2 << 20)
    assert limits_of(parse("ports:[1-2]")) == Limits()
    assert limits_of(parse("cpus:0.5;mem:1.5"), own_cpus=(2, 3)) == Limits(None, 3 << 19)


def test_a_module() -> None:
    """A WASM task gets its module's and its input's file, its entry point, and its name as argv[0]."""
    module, text = digest_of(b"module"), digest_of(b"input")
    message = TaskInfo(name="w", container=ContainerInfo(type=ContainerInfo.MESOS))
    message.container.wasm.module.sha256 = bytes.fromhex(module)
    message.container.wasm.module.size_bytes = 6
    message.container.wasm.entry_point = "run"
    message.input.sha256 = bytes.fromhex(text)
    message.input.size_bytes = 5
    spec = made(message)
    assert (spec.module, spec.stdin, spec.entry_point, spec.argv) == (path_of(module), path_of(text), "run", ("w",))
    message.command.arguments.extend(["first", "second"])
    message.command.user = "worker"
    assert (made(message).program, made(message).argv, made(message).user) == ("w", ("first", "second"), None)


def test_users() -> None:
    """A task may ask for whom it would get anyway and for those that the operator lists; else it is refused."""
    message = TaskInfo(command=CommandInfo(value="x", user="worker"))
    assert made(message, Users("worker")).user is None
    assert made(message, Users("root", ("other", "worker"))).user == "worker"
    assert made(TaskInfo(command=CommandInfo(value="x")), Users("root")).user is None
    for users in (Users(), Users("root"), Users("root", ("other",))):
        with pytest.raises(Forbidden, match=r"user 'worker', whom executors\.process\.users"):
            made(message, users)
