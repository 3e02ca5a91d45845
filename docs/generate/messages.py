"""The messages on the wire: every message, enum and field of the protos, from the compiler's descriptor set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from google.protobuf import descriptor_pb2 as pb
from grpc_tools import protoc

from generate.markdown import cell, code, table

SOURCES = Path(__file__).parents[2] / "proto"
FOLDER = "edgerm/wire/v1"
OURS = 1000  # fields of Mesos' messages from this number on are edgerm's
OWN = ("operator", "link")  # files that Mesos does not have
FIELD = pb.FieldDescriptorProto
Place = tuple[int, ...]


class File(NamedTuple):
    """One .proto and the comments in it by their place."""

    name: str
    proto: pb.FileDescriptorProto
    comments: dict[Place, str]

    @property
    def mesos(self) -> bool:
        """Whether its messages are those of Mesos."""
        return self.name not in OWN


@cache
def _files() -> tuple[File, ...]:
    names = sorted(f"{FOLDER}/{path.name}" for path in (SOURCES / FOLDER).glob("*.proto"))
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "set"
        includes = [f"-I{SOURCES}", f"-I{files('grpc_tools') / '_proto'}"]
        status = protoc.main(["protoc", *includes, "--include_source_info", f"--descriptor_set_out={out}", *names])
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status}")
        found = pb.FileDescriptorSet.FromString(out.read_bytes())
    return tuple(File(Path(file.name).stem, file, _comments(file)) for file in found.file)


def _comments(file: pb.FileDescriptorProto) -> dict[Place, str]:
    told: dict[Place, str] = {}
    for place in file.source_code_info.location:
        parts = (place.leading_comments, place.trailing_comments)
        words = " ".join(" ".join(part.split()) for part in parts if part.strip())
        told[tuple(place.path)] = words
    return told


def _head(file: File) -> str:
    """What the file says of itself: the comment before `syntax` or `edition`."""
    for place in file.proto.source_code_info.location:
        if tuple(place.path) in ((12,), (14,)):
            first = place.leading_detached_comments[:1] or [place.leading_comments]
            return " ".join(first[0].split())
    return ""


def index() -> str:
    """Which files there are, and the tree of their pages."""
    rows = [(f"[{file.name}](messages/{file.name}.md)", code(file.proto.package), _summary(file)) for file in _files()]
    lines = [*table(("file", "package", "holds"), rows), "", "```{toctree}", ":hidden:", ":titlesonly:", ""]
    return "\n".join([*lines, *(f"messages/{file.name}" for file in _files()), "```"])


def _summary(file: File) -> str:
    return cell(_head(file).partition(". ")[0].rstrip("."))


def pages() -> dict[str, str]:
    """A page for each file."""
    return {file.name: "\n".join(_page(file)) + "\n" for file in _files()}


def _page(file: File) -> Iterator[str]:
    yield from (f"# {file.name}.proto", "", _head(file), "", f"Package `{file.proto.package}`.", "")
    prefix = f".{file.proto.package}."
    for number, enum in enumerate(file.proto.enum_type):
        yield from _enum(file, enum, prefix, (5, number), 2)
    for number, message in enumerate(file.proto.message_type):
        yield from _message(file, message, prefix, (4, number), 2)


def _message(file: File, message: pb.DescriptorProto, prefix: str, place: Place, level: int) -> Iterator[str]:
    if message.options.map_entry:
        return
    whole = f"{prefix}{message.name}"
    yield from _heading(file, whole, level)
    yield from (file.comments.get(place, ""), "")
    maps = {f"{whole}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    if message.field:
        rows = [_field(file, message, maps, number, place) for number, _ in _ordered(message)]
        yield from (*table(("number", "field", "type", "default", "meaning"), rows), "")
    else:
        yield from ("No fields.", "")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(file, enum, f"{whole}.", (*place, 4, number), level + 1)
    for number, nested in enumerate(message.nested_type):
        yield from _message(file, nested, f"{whole}.", (*place, 3, number), level + 1)


def _ordered(message: pb.DescriptorProto) -> list[tuple[int, pb.FieldDescriptorProto]]:
    return sorted(enumerate(message.field), key=lambda item: item[1].number)


def _field(
    file: File, message: pb.DescriptorProto, maps: dict[str, pb.DescriptorProto], index_: int, place: Place
) -> tuple[str, ...]:
    field = message.field[index_]
    ours = " (ours)" if file.mesos and field.number >= OURS else ""
    told = cell(file.comments.get((*place, 2, index_), "").removeprefix("Ours.").strip())
    if field.HasField("oneof_index") and not field.proto3_optional:
        told = f"One of `{message.oneof_decl[field.oneof_index].name}`. {told}".strip()
    return f"{field.number}{ours}", code(field.name), _type(field, maps), code(field.default_value), told


def _type(field: pb.FieldDescriptorProto, maps: dict[str, pb.DescriptorProto]) -> str:
    """A link to a message or enum, or a scalar's name; a map is a message of its own to the compiler."""
    if field.type == FIELD.TYPE_MESSAGE and field.type_name in maps:
        key, value = maps[field.type_name].field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = field.type_name.removeprefix(".") or FIELD.Type.Name(field.type).removeprefix("TYPE_").lower()
    if name.startswith("edgerm.v1."):
        name = f"[{name.removeprefix('edgerm.v1.')}](#{_anchor(field.type_name)})"
    if field.label == FIELD.LABEL_REPEATED:
        return f"repeated {name}"
    required = field.options.features.field_presence == pb.FeatureSet.LEGACY_REQUIRED
    return f"{name}, required" if required else name


def _enum(file: File, enum: pb.EnumDescriptorProto, prefix: str, place: Place, level: int) -> Iterator[str]:
    yield from _heading(file, f"{prefix}{enum.name}", level)
    yield from (file.comments.get(place, ""), "")
    rows = [
        (str(value.number), code(value.name), cell(file.comments.get((*place, 2, number), "")))
        for number, value in enumerate(enum.value)
    ]
    yield from (*table(("number", "value", "meaning"), rows), "")


def _heading(file: File, whole: str, level: int) -> Iterator[str]:
    name = whole.removeprefix(f".{file.proto.package}.")
    yield from (f"({_anchor(whole)})=", "", f"{'#' * min(level, 4)} {name}", "")


def _anchor(whole: str) -> str:
    return "proto" + whole.replace(".", "-").replace("_", "-").lower()
