"""The proto: the committed stubs say what it says, and it keeps the rules of `buf lint` (STANDARD and COMMENTS)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from distriqueue.gateway.rpc import generating

PASCAL: Final = re.compile(r"([A-Z][a-z0-9]*)+")
SNAKE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SCREAMING: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


@pytest.fixture(name="file", scope="module")
def file_fixture() -> FileDescriptorProto:
    (file,) = FileDescriptorSet.FromString(generating.describe()).file
    return file


@pytest.mark.parametrize("name", generating.GENERATED)
def test_the_committed_stubs_are_what_the_proto_says(tmp_path: Path, name: str) -> None:
    generating.generate(tmp_path)
    assert (tmp_path / name).read_text() == (generating.STUBS / name).read_text(), "run: make protos"


def test_the_package_has_a_version_and_its_directory(file: FileDescriptorProto) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.v[0-9]+((alpha|beta)[0-9]+)?", file.package)
    assert Path(file.name).parent.as_posix() == file.package.replace(".", "/")
    assert SNAKE.fullmatch(Path(file.name).stem)
    assert file.syntax == "proto3"
    assert not file.public_dependency
    assert not file.weak_dependency


def test_services_and_their_calls(file: FileDescriptorProto) -> None:
    messages = []
    for service in file.service:
        assert PASCAL.fullmatch(service.name)
        assert service.name.endswith("Service")
        for method in service.method:
            assert PASCAL.fullmatch(method.name)
            assert method.input_type == f".{file.package}.{method.name}Request"
            assert method.output_type == f".{file.package}.{method.name}Response"
            messages += [method.input_type, method.output_type]
    assert len(messages) == len(set(messages)) > 0, "a request or response serves two calls"


def test_enums(file: FileDescriptorProto) -> None:
    enums = [*file.enum_type, *(enum for message in _messages(file) for enum in message.enum_type)]
    assert enums
    for enum in enums:
        prefix = _screaming(enum.name)
        assert PASCAL.fullmatch(enum.name)
        assert not enum.options.allow_alias
        assert enum.value[0].number == 0
        assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
        for value in enum.value:
            assert SCREAMING.fullmatch(value.name)
            assert value.name.startswith(f"{prefix}_")


def test_messages_and_fields(file: FileDescriptorProto) -> None:
    for message in _messages(file):
        if message.options.map_entry:
            continue
        assert PASCAL.fullmatch(message.name)
        for field in message.field:
            assert SNAKE.fullmatch(field.name), f"{message.name}.{field.name}"
            assert field.label != FieldDescriptorProto.LABEL_REQUIRED
        for oneof in message.oneof_decl:
            assert SNAKE.fullmatch(oneof.name.removeprefix("_")), f"{message.name}.{oneof.name}"


def test_everything_has_a_comment(file: FileDescriptorProto) -> None:
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    lacking = [name for name, path in _places(file) if not comments.get(path, "").strip()]
    assert not lacking
    assert sum(1 for _ in _places(file)) > 100


def test_nothing_is_there_that_no_call_uses(file: FileDescriptorProto) -> None:
    used = {
        type_ for service in file.service for call in service.method for type_ in (call.input_type, call.output_type)
    }
    by_name = {f".{file.package}.{message.name}": message for message in file.message_type}
    waiting = list(used)
    while waiting:
        message = by_name.get(waiting.pop())
        entries = {entry.name: entry for entry in message.nested_type} if message else {}
        fields = [*(message.field if message else ()), *(field for entry in entries.values() for field in entry.field)]
        waiting += [found for field in fields if (found := field.type_name) and found not in used]
        used |= {field.type_name for field in fields}
    defined = {*by_name, *(f".{file.package}.{enum.name}" for enum in file.enum_type)}
    # A Problem stands in the details of errors, too; it is used by SubmitMany in any case.
    assert defined <= used, defined - used


def _messages(file: FileDescriptorProto) -> Iterator[DescriptorProto]:
    waiting = [*file.message_type]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += message.nested_type


def _screaming(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def _places(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Everything that wants a comment, and its path in the descriptor (see descriptor.proto, SourceCodeInfo)."""
    yield "syntax", (12,)
    for number, service in enumerate(file.service):
        yield service.name, (6, number)
        for position, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (6, number, 2, position)
    for number, enum in enumerate(file.enum_type):
        yield from _places_of_enum(enum, (5, number))
    for number, message in enumerate(file.message_type):
        yield message.name, (4, number)
        for position, field in enumerate(message.field):
            yield f"{message.name}.{field.name}", (4, number, 2, position)
        for position, oneof in enumerate(message.oneof_decl):
            if not any(field.proto3_optional and field.oneof_index == position for field in message.field):
                yield f"{message.name}.{oneof.name}", (4, number, 8, position)


def _places_of_enum(enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield enum.name, path
    for position, value in enumerate(enum.value):
        yield value.name, (*path, 2, position)
