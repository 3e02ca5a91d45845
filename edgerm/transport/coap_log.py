"""What aiocoap says, as our own log, at debug: what any stranger's datagram can cause is for who looks for faults."""

from __future__ import annotations

import logging

from edgerm import logs

log = logs.get("transport.coap")


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.debug("aiocoap says", told=record.getMessage())


def quiet_logger() -> str:
    """The name of the logger that aiocoap is to use."""
    logger = logging.getLogger("edgerm.aiocoap")
    if not logger.handlers:
        logger.addHandler(_ToDebug())
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    return logger.name
