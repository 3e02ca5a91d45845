"""An agent whose master says that it is gone."""

from __future__ import annotations

from edgerm.core.ids import AgentId
from edgerm.core.instant import Instant
from edgerm.core.link import Gone, LinkState, Welcome
from edgerm.core.scheduler import AgentSpec
from edgerm_agent.core.agent import Agent, Identity
from edgerm_agent.core.effects import Dismissed, Effect, Send
from edgerm_agent.core.events import Event, JoinAnswered, Rang, Recovered, Tick


def test_it_is_dismissed_once_and_sends_nothing_more() -> None:
    """The answer to its join leads to one effect with the reason; later ticks, rings and answers to nothing."""
    agent = Agent(Identity(AgentId("0" * 32), AgentSpec("box"), 1))

    def happen(event: Event, now_s: float) -> list[Effect]:
        return agent.handle(event, Instant(now_s, now_s))

    [request] = [effect.request for effect in happen(Recovered(), 0.0) if isinstance(effect, Send)]
    assert happen(JoinAnswered(request, Gone("an operator said so")), 1.0) == [Dismissed("an operator said so")]
    assert agent.link_state is LinkState.GONE
    for event in (Tick(), Rang(), JoinAnswered(request, Welcome(7, 15.0)), Tick()):
        assert happen(event, 1e6) == []
    assert agent.due_s() is None
