"""`edgerm.config`: what wins, what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.config import leaves, load, variable
from edgerm.core.errors import Invalid


class Inner(msgspec.Struct, frozen=True):
    user: str = "nobody"
    count: int = 1


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: int


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parts: tuple[Part, ...] = ()


class Store(msgspec.Struct, frozen=True):
    items: tuple[Item, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    name: str = "default"
    wait_s: float = 1.0
    names: tuple[str, ...] = ()
    on: bool = False
    inner: Inner = Inner()
    store: Store = Store()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    """The last source that speaks wins, key by key."""
    file = write(tmp_path / "a.toml", 'name = "file"\nwait_s = 2.0\non = true\n[inner]\nuser = "file"\ncount = 2\n')
    environ = {"EDGERM_WAIT_S": "3", "EDGERM_INNER_USER": "env", "EDGERM_INNER_COUNT": "3", "OTHER": "x"}
    flags = {"inner.user": "flag", "name": None}
    settings = load(Settings, file=file, environ=environ, flags=flags)
    assert settings == Settings("file", 3.0, (), True, Inner("flag", 3))


def test_a_default_file_may_be_missing_but_a_named_one_may_not(tmp_path: Path) -> None:
    """Only the file that somebody named must be there."""
    assert load(Settings, default_file=tmp_path / "no", environ={}) == Settings()
    with pytest.raises(Invalid, match="--config"):
        load(Settings, file=tmp_path / "no", environ={})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nam = 1", "did you mean name?"),
        ("[inner]\nuzer = 1", "did you mean inner.user?"),
        ("wait-s = 1", "did you mean wait_s?"),
        ("inner = 1", "write [inner]"),
        ("wait_s = 'x'", "wait_s = 'x'"),
        ("[inner]\ncount = 'many'", "inner.count = 'many'"),
        ("= 1", "not TOML"),
        ("[[store]]\nname = 'a'", "write [store] or [[store.items]]"),
        (
            "[[store.items]]\nname = 'a'\n[[store.items]]\nnome = 'b'",
            "store.items[1].nome is not a setting; did you mean name?",
        ),
        (
            "[[store.items]]\nname = 'a'\nparts = [{count = 1}, {cont = 2}]",
            "store.items[0].parts[1].cont is not a setting",
        ),
        ("[[store.items]]\nname = 'a'\nparts = [{count = 'x'}]", "store.items[0].parts[0].count: Expected `int`"),
        ("[[store.items]]\nparts = []", "store.items[0]: Object missing required field `name`"),
        ("store.items = 1", "store.items = 1: Expected `array`"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    """File, key and value are in the message, and for a misspelt key the nearest one."""
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(Invalid) as caught:
        load(Settings, file=file, environ={})
    assert told in str(caught.value) and str(file) in str(caught.value)


def test_variables_of_others_are_left_alone_and_misspelt_ones_refused() -> None:
    """EDGERM_MASTER is the command line's; EDGERM_NAMEE is a mistake."""
    assert load(Settings, environ={"EDGERM_MASTER": "x", "EDGERM_TASK_ID": "y"}) == Settings()
    with pytest.raises(Invalid, match="EDGERM_NAME"):
        load(Settings, environ={"EDGERM_NAMEE": "x"})


def test_a_variable_is_read_as_toml_unless_its_setting_is_text() -> None:
    """Lists and booleans are written as in the file; text needs no quotes."""
    environ = {"EDGERM_NAMES": '["a", "b"]', "EDGERM_ON": "true", "EDGERM_NAME": "12"}
    assert load(Settings, environ=environ) == Settings("12", 1.0, ("a", "b"), True)


def test_every_setting_has_its_own_variable() -> None:
    """No two settings share a variable."""
    names = [variable(path) for path, _ in leaves(Settings)]
    assert len(set(names)) == len(names) == 7


@given(st.dictionaries(st.sampled_from(["EDGERM_NAME", "EDGERM_WAIT_S", "EDGERM_NAMES", "EDGERM_ON"]), st.text()))
def test_any_environment_gives_settings_or_one_line(environ: dict[str, str]) -> None:
    """Whatever a variable holds, the outcome is settings or `Invalid`."""
    try:
        assert isinstance(load(Settings, environ=environ), Settings)
    except Invalid as error:
        assert str(error)
