"""The agent's loop (`edgerm.shell`), and which edge carries out which effect of the core.

What does not live here: how it is done (`link`, `tasks.py`, `lane.py`, `roster.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgerm.shell import Shell, Write
from edgerm_agent.core import effects
from edgerm_agent.core.agent import Agent
from edgerm_agent.core.events import Event, Tick
from edgerm_agent.devices.manager import Devices
from edgerm_agent.lane import Lane
from edgerm_agent.link import Link
from edgerm_agent.notes import note
from edgerm_agent.roster import Roster
from edgerm_agent.tasks import Tasks


class AgentShell(Shell[Agent, Event]):
    """Runs the agent's core; `joined` is called at each session's begin, `dismissed` is done when it may never join."""

    def __init__(self, core: Agent, write: Write) -> None:
        super().__init__(core, write, Tick())
        self.joined: Callable[[], None] = lambda: None
        self.dismissed: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # why

    def connect(self, link: Link, tasks: Tasks, lane: Lane, roster: Roster, devices: Devices) -> None:
        """Hand every kind of effect to its edge; before `start`."""

        def session_began(effect: effects.SessionBegan) -> None:
            lane.forget()
            link.listen(effect.session)
            self.joined()

        def dismissed(effect: effects.Dismissed) -> None:
            if not self.dismissed.done():
                self.dismissed.set_result(effect.why)

        self.on(effects.Send, link.send)
        self.on(effects.SessionBegan, session_began)
        self.on(effects.Dismissed, dismissed)
        self.on(effects.FramesIn, lane.take)
        self.on(effects.Fetch, tasks.fetch)
        self.on(effects.Start, tasks.start)
        self.on(effects.Abandon, tasks.abandon)
        self.on(effects.Watch, tasks.watch)
        self.on(effects.Stop, tasks.stop)
        self.on(effects.Release, tasks.release)
        self.on(effects.Discard, tasks.discard)
        self.on(effects.Sleep, roster.sleep)
        self.on(effects.Noted, note)
        self.on(effects.GiveBack, devices.give_back)
        self.on(effects.Choose, devices.choose)
        self.on(effects.LocalRefused, lambda effect: None)
        self.on(effects.LocalEnded, lambda effect: None)
