"""The engine's lines about a pull."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgerm_agent.executors.docker.progress import LAYERS_MAX, Progress

MIB = 1 << 20


def line(status: str, layer: str | None = None, current: int | None = None, total: int | None = None) -> bytes:
    """As the engine writes it."""
    detail = {name: value for name, value in (("current", current), ("total", total)) if value is not None}
    told: dict[str, object] = {"status": status, "progressDetail": detail}
    return json.dumps(told | ({"id": layer} if layer else {})).encode()


def test_a_pull_is_told_in_percent_of_its_size() -> None:
    """The text grows from the image's name to a share of what is known of its size, and ends at all of it."""
    pull = Progress("busybox:1")
    assert pull.text == "pulling busybox:1"
    assert pull.feed(line("Downloading", "a", 3 * MIB, 10 * MIB))
    assert pull.text == "pulling busybox:1: 30 % of 10 MiB"
    assert pull.feed(line("Downloading", "b", 0, MIB // 2))
    assert pull.text == "pulling busybox:1: 28 % of 10 MiB"
    assert pull.feed(line("Download complete", "a"))
    assert pull.feed(line("Extracting", "a", 5, 10))
    assert pull.feed(line("Pull complete", "b"))
    assert pull.text == "pulling busybox:1: 100 % of 10 MiB"
    assert not pull.done
    assert pull.feed(line("Status: Downloaded newer image for busybox:1"))
    assert pull.done


def test_only_news_is_progress() -> None:
    """A line that was told already, a retry and a wait are no progress; each further byte is."""
    pull = Progress("i")
    assert pull.feed(line("Downloading", "a", 1, 10))
    assert not pull.feed(line("Downloading", "a", 1, 10))
    assert not pull.feed(line("Retrying in 5 seconds", "a"))
    assert not pull.feed(line("Waiting", "b"))
    assert pull.feed(line("Downloading", "a", 2, 10))


def test_an_error_is_one_line() -> None:
    """What the registry said is kept for the failed launch."""
    pull = Progress("i")
    assert pull.feed(json.dumps({"error": "manifest\nunknown", "errorDetail": {}}).encode())
    assert pull.error == "manifest unknown"


def test_layers_are_bounded() -> None:
    """An image cannot make us count without end."""
    pull = Progress("i")
    for number in range(2 * LAYERS_MAX):
        pull.feed(line("Downloading", str(number), 1, 2))
    assert len(pull._layers) == LAYERS_MAX


NAMES = st.sampled_from(["status", "id", "progressDetail", "current", "total"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)


@given(st.lists(st.binary() | JSON.map(lambda value: json.dumps(value).encode())))
def test_no_line_breaks_it(lines: list[bytes]) -> None:
    """Whatever the engine writes, the text stays one line with a share of at most all."""
    pull = Progress("i")
    for told in lines:
        pull.feed(told)
    assert pull.text.startswith("pulling i")
    assert "\n" not in pull.text + pull.error
    share = pull.text.partition(": ")[2].partition(" %")[0]
    assert not share or 0 <= int(share) <= 100
