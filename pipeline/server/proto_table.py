"""Builds classes of protocol buffers from a table, so that there is no generated code, nor a package that brings it."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto


def messages(package: str, table: str, enums: Mapping[str, Mapping[str, int]] | None = None) -> dict[str, Any]:
    """The message classes by name, in a pool apart from that of a client's generated code.

    A row of the table is a message's name, a colon and its fields, parted by commas. A field is written as in a .proto
    file: `repeated int64 shape = 3`, `map<string, Tensor> inputs = 1`; one of several that exclude each other begins
    with the name of their group, as `oneof kind Text text = 1`. Fields that are not listed are skipped when a message
    is read, as protocol buffers skip fields that they do not know.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", syntax="proto3", package=package)
    for name, values in (enums or {}).items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    rows = [row.partition(":") for row in table.replace(",\n", ",").split("\n") if row]
    for name, _, fields in rows:
        message = file.message_type.add(name=name)
        for field in filter(None, map(str.strip, fields.replace("string, ", "string,").split(", "))):
            _add(message, field, package, enums or {})
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name, _, _ in rows}
    return {name: message_factory.GetMessageClass(message) for name, message in made.items()}


def _add(message: Any, field: str, package: str, enums: Mapping[str, Any]) -> None:
    """Add one field to the descriptor of a message."""
    *words, kind, name, _, number = field.split()
    added = message.field.add(name=name, number=int(number), label=FIELD.LABEL_OPTIONAL)
    if words == ["repeated"]:
        added.label = FIELD.LABEL_REPEATED
    elif words:
        _put_into_oneof(message, added, words[1])
    if kind.startswith("map<"):
        value = kind.removeprefix("map<string,").removesuffix(">")
        kind = "".join(part.title() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=kind)
        entry.options.map_entry = True
        _add(entry, "string key = 1", package, enums)
        _add(entry, f"{value} value = 2", package, enums)
        added.label = FIELD.LABEL_REPEATED
        kind = f"{message.name}.{kind}"
    if not kind[0].isupper():
        added.type = FIELD.Type.Value(f"TYPE_{kind.upper()}")
        return
    added.type = FIELD.TYPE_ENUM if kind in enums else FIELD.TYPE_MESSAGE
    added.type_name = f".{package}.{kind}"


def _put_into_oneof(message: Any, field: Any, group: str) -> None:
    names = [each.name for each in message.oneof_decl]
    if group not in names:
        message.oneof_decl.add(name=group)
        names.append(group)
    field.oneof_index = names.index(group)
