"""JSON Schema of metadata; the one place that names jsonschema, which is imported when a class has a schema.

What does not live here: which metadata are any at all (`edgerm.core.metadata`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from edgerm.core.devices import Device, Inventory
from edgerm.core.metadata import read
from edgerm.plugin.checking import line

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMA_BYTES_MAX = 256 << 10
NO_PACKAGE = "its schema cannot be checked here: pip install 'edgerm[devices]'"


def keeping_schemas(inventory: Inventory) -> Inventory:
    """The inventory, where a device whose metadata break the schema of its class has a problem that says so."""
    if not any(each.schema for each in inventory.classes):
        return inventory
    classes = tuple(replace(each, problem=each.problem or problem_of_schema(each.schema)) for each in inventory.classes)
    schemas = {each.name: each.schema for each in classes if not each.problem}
    devices = tuple(_keeping(device, schemas.get(device.name, "")) for device in inventory.devices)
    return replace(inventory, classes=classes, devices=devices)


def _keeping(device: Device, schema: str) -> Device:
    if device.problem:  # it may be why there are none; it is not given anyway
        return device
    broken = problem_of_metadata(schema, device.metadata) if schema else ""
    if not broken:
        return device
    return replace(device, problem=f"its metadata break the schema of {device.name}: {broken}")


def problem_of_schema(text: str) -> str:
    """Why this is no schema, or cannot be used; empty: it is one, or there is none."""
    if not text:
        return ""
    if len(text) > SCHEMA_BYTES_MAX:
        return f"its schema has {len(text)} characters, at most {SCHEMA_BYTES_MAX} are allowed"
    try:
        _validator(text)
    except ImportError:
        return NO_PACKAGE
    except (ValueError, RecursionError) as error:
        return f"its schema is none: {error}"
    return ""


@lru_cache(maxsize=8192)
def problem_of_metadata(schema: str, metadata: str) -> str:
    """Where and how these metadata break the schema, which is one; empty: they keep to it."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - most agents have no class with a schema

    error = best_match(_validator(schema).iter_errors(cast(Any, read(metadata))))
    if error is None:
        return ""
    where = ".".join(str(part) for part in error.absolute_path)
    return line(f"{where}: {error.message}" if where else error.message)


@lru_cache(maxsize=64)
def _validator(text: str) -> Validator:
    """Raises `ValueError` for what is no schema."""
    from jsonschema import Draft202012Validator, SchemaError, validators  # noqa: PLC0415 - see above

    schema = json.loads(text)
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema of metadata is an object")
    _check_references(schema)
    found: type[Validator] = validators.validator_for(schema, default=Draft202012Validator)
    try:
        found.check_schema(schema)
    except SchemaError as error:
        raise ValueError(error.message[:200]) from error
    return found(schema)


def _check_references(part: object) -> None:
    """Nothing is fetched from anywhere."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                raise ValueError(f"it refers to {value[:80]!r}, outside itself")
            _check_references(value)
    elif isinstance(part, list):
        for value in part:
            _check_references(value)
