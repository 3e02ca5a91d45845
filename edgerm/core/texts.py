"""Texts within a bound of bytes: what is kept of one that is too long is valid UTF-8 still."""

from __future__ import annotations


def utf8_bytes(text: str) -> int:
    """How long `text` is in UTF-8; a lone surrogate, which no message holds, counts too."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def cut(text: str, max_bytes: int) -> str:
    """The beginning of `text`, at most `max_bytes` of UTF-8; a character that does not fit whole is left out."""
    if utf8_bytes(text) <= max_bytes:
        return text
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def tail(text: str, max_bytes: int) -> str:
    """The end of `text`, at most `max_bytes` of UTF-8; a character that does not fit whole is left out."""
    if utf8_bytes(text) <= max_bytes:
        return text
    return text.encode("utf-8", "replace")[-max_bytes:].decode("utf-8", "ignore")
