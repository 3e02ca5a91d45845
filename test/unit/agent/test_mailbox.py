"""The mailbox of a task: its socket in the sandbox, what waits for it, who may speak."""

from __future__ import annotations

import asyncio
import errno
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.link import Letter
from edgerm.core.scheduler import MESSAGE_BYTES_MAX
from edgerm.sdk.mailbox import Mailbox, MailboxError
from edgerm_agent import mailbox, mailbox_socket
from edgerm_agent.core.effects import MessageIn
from edgerm_agent.core.events import Event, SendMessage
from edgerm_agent.mailbox import Mailboxes, place_of, told_path
from edgerm_agent.mailbox_socket import CONNECTIONS_MAX, NAME, TURN_MESSAGES, Waiting

KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))


class Box:
    """Mailboxes, a sandbox, and what tasks said."""

    def __init__(self, folder: Path) -> None:
        self.sandbox = folder / "work"
        self.sandbox.mkdir(parents=True)
        self.said: asyncio.Queue[Letter] = asyncio.Queue()
        self.mailboxes = Mailboxes()
        self.mailboxes.begin(self._hear)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, SendMessage)
        self.said.put_nowait(event.letter)

    def give(self, *messages: bytes) -> None:
        """Messages for the task."""
        for data in messages:
            self.mailboxes.take(MessageIn(Letter(KEY, data)))

    async def hear(self) -> bytes:
        """What the task says next."""
        async with asyncio.timeout(20):
            letter = await self.said.get()
        assert letter.key == KEY
        return letter.data

    def task(self) -> Mailbox:
        """The task's end."""
        return Mailbox(str(self.sandbox / NAME))


async def receive(task: Mailbox) -> bytes | None:
    """As a task does, in a thread."""
    return await asyncio.to_thread(task.receive, 20)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A task with a mailbox."""
    made = Box(tmp_path)
    made.mailboxes.open(KEY, made.sandbox, "process")
    yield made
    made.mailboxes.close_all()
    await asyncio.sleep(0)


@given(st.lists(st.integers(1, MESSAGE_BYTES_MAX), max_size=100))
def test_what_waits_is_bounded(sizes: list[int]) -> None:
    """At most 64 messages and 256 KiB wait; the latest stay, and each that went is counted."""
    waiting = Waiting()
    dropped = sum(waiting.put(bytes([number % 256]) * size) for number, size in enumerate(sizes))
    left = [waiting.pop() for _ in range(len(waiting.messages))]
    assert [len(data) for data in left] == sizes[dropped:]
    assert len(left) <= 64
    assert sum(map(len, left)) <= 256 * 1024
    assert left or not sizes


async def test_before_and_after_the_start(tmp_path: Path) -> None:
    """What comes before the task's socket is there waits for it; what is for a task without one is counted."""
    box = Box(tmp_path)
    box.give(b"early")
    box.mailboxes.open(KEY, box.sandbox, "process")
    box.give(b"later")
    with box.task() as task:
        assert [await receive(task), await receive(task)] == [b"early", b"later"]
    box.mailboxes.close(KEY)
    box.give(b"early again")
    box.mailboxes.refuse(KEY)
    box.give(b"never")
    assert box.mailboxes.dropped == 2
    box.mailboxes.close_all()


async def test_the_latest_connection_hears(box: Box) -> None:
    """Every connection may speak; the one that was opened last hears, and after it the one before."""
    first, second = box.task(), box.task()
    assert first.send(b"first")
    assert await box.hear() == b"first"
    assert second.send(b"second")
    assert await box.hear() == b"second"
    box.give(b"for the second")
    assert await receive(second) == b"for the second"
    second.close()
    while len(box.mailboxes._open[KEY]._connections) > 1:
        await asyncio.sleep(0)
    box.give(b"for the first")
    assert await receive(first) == b"for the first"
    first.close()


async def test_a_task_that_does_not_read(box: Box) -> None:
    """A task that reads nothing holds nobody up: the latest messages wait, older ones go."""
    with box.task() as task:
        task.send(b"here")
        await box.hear()
        box.give(*(b"%05d" % number + bytes(60_000) for number in range(50)))
        assert box.mailboxes.dropped > 30
        heard = [await receive(task)]
        while not (heard[-1] or b"").startswith(b"00049"):
            heard.append(await receive(task))
        numbers = [int((data or b"")[:5]) for data in heard]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("noise", [b"x", b"0\n", b"65537\n", b"12345678901\n", b"-1\n"])
async def test_noise(box: Box, noise: bytes) -> None:
    """A connection that does not keep to the format is closed, and others are as they were."""
    reader, writer = await asyncio.open_unix_connection(box.sandbox / NAME)
    writer.write(noise)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    with box.task() as task:
        assert task.send(b"fine")
        assert await box.hear() == b"fine"


async def test_what_a_task_leaves_in_the_way(box: Box, tmp_path: Path) -> None:
    """A link or a file in the socket's place is replaced when the agent starts anew, and never followed."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    precious.chmod(0o600)
    for leave in (lambda path: path.symlink_to(precious), lambda path: path.write_text("x"), lambda path: None):
        (box.sandbox / NAME).unlink()
        leave(box.sandbox / NAME)
        box.mailboxes.reopen(KEY, box.sandbox, "process")
        assert stat.S_ISSOCK((box.sandbox / NAME).lstat().st_mode)
        with box.task() as task:
            assert task.send(b"here")
            assert await box.hear() == b"here"
    assert precious.read_text() == "mine"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600
    (box.sandbox / NAME).unlink()
    (box.sandbox / NAME).mkdir()
    box.mailboxes.reopen(KEY, box.sandbox, "process")  # no socket then, and no fault
    assert KEY not in box.mailboxes._open


async def test_a_task_without_a_mailbox_is_taken_back_without(tmp_path: Path) -> None:
    """After a restart only tasks that had a mailbox have one."""
    box = Box(tmp_path)
    box.mailboxes.reopen(KEY, box.sandbox, "process")
    assert not (box.sandbox / NAME).exists()


async def test_a_deep_sandbox(tmp_path: Path) -> None:
    """Where a sandbox's path is too long for a socket's address the task is told a short one, and both ends work."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    box = Box(deep)
    box.mailboxes.open(KEY, box.sandbox, "process")
    assert told_path(str(box.sandbox)) == f"./{NAME}"
    assert told_path("/mnt/mesos/sandbox") == f"/mnt/mesos/sandbox/{NAME}"
    with box.task() as task:
        assert task.send(b"here")
        assert await box.hear() == b"here"
    box.mailboxes.close_all()


async def test_a_module(tmp_path: Path) -> None:
    """A module's socket is not in its sandbox, where the module could put a link that the host would follow."""
    box = Box(tmp_path)
    box.mailboxes.open(KEY, box.sandbox, "wasm")
    assert not list(box.sandbox.iterdir())
    place = place_of(box.sandbox, "wasm")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    with Mailbox(str(place)) as task:
        assert task.send(b"here")
        assert await box.hear() == b"here"
    box.mailboxes.close_all()


async def test_a_flood(box: Box) -> None:
    """Of a task that talks without end only so much is heard in a turn; all of it in order, and others are served."""
    _, writer = await asyncio.open_unix_connection(box.sandbox / NAME)
    writer.write(b"1\nx" * 1000)
    assert await box.hear() == b"x"
    assert box.said.qsize() < TURN_MESSAGES
    with box.task() as other:
        assert other.send(b"other")
        heard = [await box.hear() for _ in range(1000)]
    assert heard.count(b"x") == 999
    assert b"other" in heard
    writer.close()


async def test_connections_are_bounded(box: Box) -> None:
    """Of many connections of one task the latest are kept, however fast they come."""
    made = [socket.socket(socket.AF_UNIX) for _ in range(3 * CONNECTIONS_MAX)]
    ours = box.mailboxes._open[KEY]
    for each in made:
        await asyncio.to_thread(each.connect, str(box.sandbox / NAME))
    made[-1].sendall(b"1\nx")
    assert await box.hear() == b"x"
    assert len(ours._connections) == CONNECTIONS_MAX
    for each in made[: -2 * CONNECTIONS_MAX]:
        assert await asyncio.to_thread(each.recv, 1) == b""
    for each in made:
        each.close()


async def test_no_more_descriptors(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be accepted now is accepted later, and does not keep the agent busy meanwhile."""
    tries = 0

    class Short:
        """A listener of a process that has no descriptor left, the first time."""

        def __init__(self, real: socket.socket) -> None:
            self.fileno, self.close = real.fileno, real.close
            self._real = real

        def accept(self) -> tuple[socket.socket, object]:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return self._real.accept()

    monkeypatch.setattr(mailbox_socket, "ACCEPT_RETRY_S", 0.01)
    ours = box.mailboxes._open[KEY]
    monkeypatch.setattr(ours, "_listener", Short(ours._listener))
    with box.task() as task:
        assert task.send(b"here")
        assert await box.hear() == b"here"
    assert tries == 2


async def test_a_new_agent(box: Box) -> None:
    """A task connects again by itself when its agent was started anew; what it had whole it keeps."""
    task = box.task()
    assert task.send(b"before")
    assert await box.hear() == b"before"
    box.give(b"kept")
    box.mailboxes.reopen(KEY, box.sandbox, "process")
    assert await receive(task) == b"kept"
    box.give(b"after")
    assert await receive(task) == b"after"
    assert task.send(b"too")
    assert await box.hear() == b"too"
    task.close()


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Mailbox]:
    """A mailbox whose agent is away."""
    made = Mailbox(str(tmp_path / "nowhere"))
    yield made
    made.close()


def test_without_an_agent(nobody: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the agent is away a task waits no longer than it wants; one without a mailbox is told so."""
    assert nobody.receive(timeout_s=0.01) is None
    assert nobody.send(b"x", timeout_s=0.01) is False
    for size in (0, MESSAGE_BYTES_MAX + 1):
        with pytest.raises(ValueError, match="1 to 65536"):
            nobody.send(bytes(size))
    monkeypatch.delenv("EDGERM_MESSAGES", raising=False)
    with pytest.raises(MailboxError, match="messages=True"):
        Mailbox.open()


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=6), st.data())
def test_the_tasks_end_reads_pieces(messages: list[bytes], data: st.DataObject) -> None:
    """However the bytes are cut on their way, a task reads the messages that were sent."""
    ours = Mailbox("nowhere")
    row = b"".join(b"%d\n" % len(message) + message for message in messages)
    read = []
    while row:
        cut = data.draw(st.integers(1, len(row)))
        ours._buffer += row[:cut]
        row = row[cut:]
        while (message := ours._next()) is not None:
            read.append(message)
    assert read == messages


@given(st.binary(max_size=30))
def test_the_tasks_end_survives_noise(noise: bytes) -> None:
    """Bytes that are no messages are messages by chance, wait for more, or are refused with a word."""
    ours = Mailbox("nowhere")
    ours._buffer += noise
    try:
        while ours._next() is not None:
            pass
    except MailboxError as error:
        assert "no length" in str(error)
    assert len(ours._buffer) <= len(noise)


def test_constants_agree() -> None:
    """Agent and task mean the same by a message and by the variable's name."""
    from edgerm.sdk import mailbox as theirs

    assert (theirs.VARIABLE, theirs.MESSAGE_BYTES_MAX) == (mailbox.VARIABLE, MESSAGE_BYTES_MAX)
