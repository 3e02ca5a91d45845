"""Settings of a program: defaults, then a TOML file, then the environment, then flags; the last one that speaks wins.

What lives here: the one merge function. Which settings there are, a program says with a msgspec struct whose fields
are values or further structs. The environment's name of `executors.process.user` is `EDGERM_EXECUTORS_PROCESS_USER`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from edgerm.core.errors import Invalid

PREFIX = "EDGERM_"
FILE_BYTES_MAX = 1 << 20

S = TypeVar("S", bound=msgspec.Struct)


def load(
    settings: type[S],
    *,
    file: Path | None = None,
    default_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> S:
    """The settings that hold now; raises `Invalid`, naming the source, the key and the value.

    `file` must exist, `default_file` may. In `flags` a key is a dotted path and None means "not given". Variables that
    no setting has are those of other programs, unless they look like a misspelt one.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    chosen = file if file is not None or default_file is None or not default_file.exists() else default_file
    if chosen is not None:
        _merge(merged, origins, _flatten(settings, _read(chosen), str(chosen)), str(chosen))
    _merge(merged, origins, _from_environment(settings, os.environ if environ is None else environ), "environment")
    given = {tuple(key.split(".")): value for key, value in (flags or {}).items() if value is not None}
    _merge(merged, origins, given, "command line")
    try:
        return msgspec.convert(merged, settings, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error, origins) from None


def leaves(settings: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each setting's path and type."""
    for name, kind in get_type_hints(settings).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from leaves(kind, (*above, name))
        else:
            yield (*above, name), kind


def variable(path: tuple[str, ...]) -> str:
    """The environment's name of a setting."""
    return PREFIX + "_".join(path).upper()


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise Invalid(f"{file} is larger than {FILE_BYTES_MAX} bytes: that is no configuration")
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}: name a file that can be read with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} is not TOML: {error}") from None


def _flatten(
    settings: type[msgspec.Struct], table: Mapping[str, Any], source: str, above: tuple[str, ...] = ()
) -> dict[tuple[str, ...], Any]:
    """Paths to values; a key that `settings` does not have is refused, with the nearest one that it has."""
    kinds = get_type_hints(settings)
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        path = (*above, key)
        if key not in kinds:
            raise Invalid(f"{source}: {'.'.join(path)} is not a setting{_nearest(key, kinds, above)}")
        kind = kinds[key]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if not isinstance(value, dict):
                name = ".".join(path)
                raise Invalid(f"{source}: {name} is a table, not {value!r:.200}: write {_headers(kind, name)}")
            found.update(_flatten(kind, value, source, path))
        else:
            _check_list(kind, value, f"{source}: {'.'.join(path)}")
            found[path] = value
    return found


def _headers(settings: type[msgspec.Struct], name: str) -> str:
    """How the table of this name, and the lists of tables in it, begin."""
    lists = [inner for inner, kind in get_type_hints(settings).items() if _element(kind) is not None]
    return " or ".join([f"[{name}]", *(f"[[{name}.{inner}]]" for inner in lists)])


def _element(kind: Any) -> type[msgspec.Struct] | None:
    """Of which tables a setting is a list; None: it is none."""
    args = get_args(kind) if get_origin(kind) is tuple else ()
    return args[0] if args and isinstance(args[0], type) and issubclass(args[0], msgspec.Struct) else None


def _check_list(kind: Any, value: Any, where: str) -> None:
    """As `_flatten` does with tables: keys in a list of tables that do not exist are refused."""
    element = _element(kind)
    if element is None or not isinstance(value, list):
        return
    kinds = get_type_hints(element)
    for number, table in enumerate(value):
        for key, inner in table.items() if isinstance(table, dict) else ():
            if key not in kinds:
                raise Invalid(f"{where}[{number}].{key} is not a setting{_nearest(key, kinds, ())}")
            _check_list(kinds[key], inner, f"{where}[{number}].{key}")


def _nearest(key: str, known: Mapping[str, Any], above: tuple[str, ...]) -> str:
    close = get_close_matches(key.replace("-", "_").lower(), list(known), n=1, cutoff=0.5)
    if close:
        return f"; did you mean {'.'.join((*above, close[0]))}?"
    return f"; there are {', '.join('.'.join((*above, name)) for name in known)}"


def _from_environment(settings: type[msgspec.Struct], environ: Mapping[str, str]) -> dict[tuple[str, ...], Any]:
    known = {variable(path): (path, kind) for path, kind in leaves(settings)}
    found = {}
    for name, text in environ.items():
        if name in known:
            path, kind = known[name]
            found[path] = _value(kind, text)
        elif name.startswith(PREFIX) and (close := get_close_matches(name, known, n=1, cutoff=0.9)):
            raise Invalid(f"environment: {name} is not a setting; did you mean {close[0]}?")
    return found


def _value(kind: Any, text: str) -> Any:
    """A variable's text as TOML would read it, unless the setting is text."""
    if kind is str or kind == str | None:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(merged: dict[str, Any], origins: dict[str, str], values: Mapping[tuple[str, ...], Any], source: str) -> None:
    for path, value in values.items():
        table = merged
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = value
        origins[".".join(path)] = f"{source}: {'.'.join(path)} = {value!r}"


def _explained(error: msgspec.ValidationError, origins: Mapping[str, str]) -> Invalid:
    """msgspec says `… - at `$.a.b``; say where that value came from."""
    problem, _, where = str(error).partition(" - at `$.")
    where = where.rstrip("`")
    key, bracket, _ = where.partition("[")
    origin = origins.get(key, key or "settings")
    if bracket:  # the whole list would be no help
        origin = origin.partition(f"{key} = ")[0] + where
    return Invalid(f"{origin}: {problem}")
