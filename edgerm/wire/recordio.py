"""RecordIO, the framing of Mesos streams: the record's length in decimal, one line feed, the record; nothing between.

What does not live here: what a record holds, and where its bytes come from.
"""

from __future__ import annotations

from edgerm.core.errors import Invalid, TooLarge

_LENGTH_DIGITS = 10  # 2**32 needs ten; leading zeros count
_DIGITS = b"0123456789"


def frame(payload: bytes) -> bytes:
    """One record on the wire; raises ValueError for an empty payload, which RecordIO cannot carry."""
    if not payload:
        raise ValueError("a record is never empty")
    return b"%d\n%b" % (len(payload), payload)


class Decoder:
    """Cuts a stream that arrives in chunks of any size into records.

    Holds at most one incomplete record of at most `max_record_bytes`. After an error the stream has no meaning:
    every further `feed` raises that error again.
    """

    def __init__(self, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray()  # an incomplete length line, or an incomplete record
        self._needed: int | None = None  # the record's length; None while its line is read
        self._broken: Invalid | None = None

    @property
    def clean(self) -> bool:
        """True between two records: a stream that ends here was not cut."""
        return not self._buffer and self._needed is None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The records that this chunk completes.

        Raises Invalid for a length that is zero or not decimal, and TooLarge, before any of the record is held, for
        one beyond the bound. Records completed by the same chunk before the fault are lost with it.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._cut(memoryview(chunk))
        except Invalid as error:
            self._broken = error
            self._buffer.clear()
            raise

    def _cut(self, rest: memoryview) -> list[bytes]:
        records = []
        while rest:
            if self._needed is None:
                rest = self._read_length(rest)
                continue
            take = self._needed - len(self._buffer)
            self._buffer += rest[:take]
            rest = rest[take:]
            if len(self._buffer) == self._needed:
                records.append(bytes(self._buffer))
                self._buffer.clear()
                self._needed = None
        return records

    def _read_length(self, rest: memoryview) -> memoryview:
        """Takes what belongs to the length line; returns what follows."""
        room = _LENGTH_DIGITS + 1 - len(self._buffer)
        head = bytes(rest[:room])
        digits, feed, _ = head.partition(b"\n")
        line = bytes(self._buffer) + digits
        if line.strip(_DIGITS) or len(line) > _LENGTH_DIGITS or (feed and not line):
            raise Invalid(f"RecordIO: {line[:24]!r} is no record length of 1 to {_LENGTH_DIGITS} digits")
        if not feed:
            self._buffer += digits
            return rest[len(head) :]
        length = int(line)
        if length == 0:
            raise Invalid("RecordIO: a record of length 0")
        if length > self._max_record_bytes:
            raise TooLarge(f"RecordIO: a record of {length} bytes; at most {self._max_record_bytes} are taken")
        self._buffer.clear()
        self._needed = length
        return rest[len(digits) + 1 :]
