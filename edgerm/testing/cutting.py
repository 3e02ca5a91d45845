"""A host whose power is cut at a step of a plugin: what it did until then is done, and nothing comes after.

What does not live here: the suite that cuts at every step (`conformance.device`).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgerm.plugin.device import HostFiles


class PowerCut(BaseException):
    """The agent is no more. No plugin can do anything about it."""


class CutHost:
    """`host`, until a step would be the `steps + 1`th that changes something: a write, a note, a program.

    That one and all calls after it raise `PowerCut`. `left` is how many steps are still possible.
    """

    def __init__(self, host: HostFiles, steps: int) -> None:
        self.left = steps
        self.cut = False
        self._host = host
        self.notes = _CutNotes(self)

    @property
    def host(self) -> HostFiles:
        """The host, for a look. Raises `PowerCut` once it is cut."""
        if self.cut:
            raise PowerCut
        return self._host

    def changing(self) -> HostFiles:
        """The host, for one step. Raises `PowerCut` if there is none left."""
        self.cut = self.cut or self.left == 0
        self.left -= 1
        return self.host

    def read(self, path: str) -> str:
        """A look."""
        return self.host.read(path)

    def write(self, path: str, text: str) -> None:
        """A step."""
        self.changing().write(path, text)

    def names(self, path: str) -> tuple[str, ...]:
        """A look."""
        return self.host.names(path)

    def exists(self, path: str) -> bool:
        """A look."""
        return self.host.exists(path)

    def link(self, path: str) -> str:
        """A look."""
        return self.host.link(path)

    async def run(self, *argv: str) -> str:
        """A step, as nobody knows what a program does."""
        return await self.changing().run(*argv)


class _CutNotes:
    """The notes of a `CutHost`."""

    def __init__(self, host: CutHost) -> None:
        self._host = host

    def get(self, key: str) -> Mapping[str, object] | None:
        """A look."""
        return self._host.host.notes.get(key)

    def put(self, key: str, note: Mapping[str, object]) -> None:
        """A step."""
        self._host.changing().notes.put(key, note)

    def drop(self, key: str) -> None:
        """A step."""
        self._host.changing().notes.drop(key)

    def keys(self) -> tuple[str, ...]:
        """A look."""
        return self._host.host.notes.keys()
