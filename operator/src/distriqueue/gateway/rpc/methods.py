"""The calls of JobService, as the proto describes them: joined to the functions that answer them.

Guarantees: every call of the proto has a function, or nothing starts; requests and responses have the types of the
proto. There is no generated servicer: its code would have no types.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from distriqueue.gateway.rpc.stubs import jobs_pb2

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Message]]
Streaming = Callable[[Any, Context], Awaitable[None]]
"""Writes its messages to the context."""

_SERVICE: Final = jobs_pb2.DESCRIPTOR.services_by_name["JobService"]
SERVICE_NAME: Final[str] = _SERVICE.full_name
"""The name by which clients, health and reflection know the service."""


def handlers(*, unary: Callable[[str], Unary], streaming: Callable[[str], Streaming]) -> grpc.GenericRpcHandler:
    """Return what a server is given.

    Args:
        unary: Returns the function that answers a call, by its name in the proto.
        streaming: The same for those that answer with a stream.
    """
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in _SERVICE.methods:
        request, response = _classes(method)
        if method.server_streaming:
            found[method.name] = grpc.unary_stream_rpc_method_handler(
                cast("Any", streaming(method.name)),
                request_deserializer=request.FromString,
                response_serializer=response.SerializeToString,
            )
        else:
            found[method.name] = grpc.unary_unary_rpc_method_handler(
                cast("Any", unary(method.name)),
                request_deserializer=request.FromString,
                response_serializer=response.SerializeToString,
            )
    return grpc.method_handlers_generic_handler(SERVICE_NAME, found)


def call(channel: grpc.aio.Channel, name: str) -> Any:
    """Return a call of a channel, such as ``call(channel, "Get")(request)``; what a generated client stub would have.

    Args:
        channel: A channel to a gateway.
        name: The call's name in the proto.
    """
    method = _SERVICE.methods_by_name[name]
    request, response = _classes(method)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    return make(
        f"/{SERVICE_NAME}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def snake_case(name: str) -> str:
    """Return a call's name as that of a function."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _classes(method: MethodDescriptor) -> tuple[type[Message], type[Message]]:
    return GetMessageClass(method.input_type), GetMessageClass(method.output_type)
