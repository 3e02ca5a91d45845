"""The list at `/.well-known/core` (RFC 6690) and its filter. Names no library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgerm.core.errors import Invalid

Link = tuple[str, Mapping[str, str]]
"""Path, and attributes; one with an empty value is a word alone, such as `obs`."""


def link_format(links: Iterable[Link], query: Sequence[str]) -> bytes:
    """The links that match, as `application/link-format`; raises `Invalid` for a query that is no filter."""
    filters = [_filter(text) for text in query]
    matching = (link for link in links if all(_matches(link, *one) for one in filters))
    return ",".join(f"<{path}>" + "".join(map(_attribute, said.items())) for path, said in matching).encode()


def _attribute(item: tuple[str, str]) -> str:
    name, value = item
    if not value:
        return f";{name}"
    return f";{name}={value}" if value.isdigit() else f';{name}="{value}"'


def _filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(f"the query {text[:40]!r} is no filter: write rt=…, href=… or the like")
    return name, value


def _matches(link: Link, name: str, wanted: str) -> bool:
    """A value may be a list of words, one of which must match; `*` at the end stands for anything."""
    path, attributes = link
    values = [path] if name == "href" else attributes[name].split() if name in attributes else []
    if wanted.endswith("*"):
        return any(value.startswith(wanted[:-1]) for value in values)
    return wanted in values
