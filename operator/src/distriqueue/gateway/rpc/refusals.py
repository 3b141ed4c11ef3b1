"""Problems in the words of gRPC: a status code, the sentence, and the whole problem in the details.

Guarantees: each `Problem` has one code, by its HTTP status. The details are a `google.rpc.Status` in the trailer
`grpc-status-details-bin`, as every gRPC library reads it, with one `distriqueue.v1alpha1.Problem` in it. A problem with
`retry_after` also has the trailer `grpc-retry-pushback-ms`, which clients with a retry policy obey; where the outcome
is not known it is negative, so that they do not try again.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from grpc import StatusCode

from distriqueue.gateway.problems import Problem, Unsettled
from distriqueue.gateway.rpc.stubs import jobs_pb2

DETAILS_TRAILER: Final = "grpc-status-details-bin"
PUSHBACK_TRAILER: Final = "grpc-retry-pushback-ms"

_SENTENCE_LIMIT: Final = 700
"""Characters: clients take 8 KiB of trailers, and the sentence stands there twice, once with three bytes for each."""
_DETAILS_LIMIT_BYTES: Final = 3000
"""Largest problem in the trailers; what is more of `errors` is left out."""
_CODES: Final = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    # Not ABORTED, after which libraries try again: what is in the way does not go by itself.
    409: StatusCode.FAILED_PRECONDITION,
    410: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
}


def code_of(problem: Problem) -> StatusCode:
    """Return the status code of a problem."""
    return _CODES.get(problem.status, StatusCode.UNKNOWN)


def message_of(problem: Problem) -> jobs_pb2.Problem:
    """Return a problem as a message: what its RFC 9457 document has."""
    return jobs_pb2.Problem(
        status=int(problem.status),
        type=problem.document()["type"],
        title=problem.title,
        detail=problem.detail,
        errors=[jobs_pb2.FieldError(field=error.field, message=error.message) for error in problem.errors],
        retry_after_seconds=problem.retry_after,
    )


def trailers_of(problem: Problem) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata of a call that ends with a problem."""
    message = message_of(problem)
    message.detail = sentence_of(problem)
    while message.errors and message.ByteSize() > _DETAILS_LIMIT_BYTES:
        del message.errors[-1]
    detail = AnyMessage()
    detail.Pack(message)
    status = _STATUS(code=code_of(problem).value[0], message=message.detail, details=[detail.SerializeToString()])
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_TRAILER, status.SerializeToString())]
    if isinstance(problem, Unsettled):
        trailers.append((PUSHBACK_TRAILER, "-1"))
    elif problem.retry_after is not None:
        trailers.append((PUSHBACK_TRAILER, str(round(1000 * problem.retry_after))))
    return tuple(trailers)


def sentence_of(problem: Problem) -> str:
    """Return the sentence that stands in the status of a call."""
    return problem.detail[:_SENTENCE_LIMIT]


def problem_in(trailers: Iterable[tuple[str, str | bytes]] | None) -> jobs_pb2.Problem | None:
    """Return the problem in the trailing metadata of a call, for clients; None when there is none."""
    for key, value in trailers or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            status: Any = _STATUS.FromString(value)
            for packed in status.details:
                problem = jobs_pb2.Problem()
                if AnyMessage.FromString(packed).Unpack(problem):
                    return problem
    return None


def _status_class() -> type[Message]:
    """Make what has the wire format of `google.rpc.Status`: the package that has it is not needed for three fields.

    Its details are messages of type Any there, and their bytes here, which is the same on the wire.
    """
    field = descriptor_pb2.FieldDescriptorProto
    fields = [
        field(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL),
        field(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL),
        field(name="details", number=3, type=field.TYPE_BYTES, label=field.LABEL_REPEATED),
    ]
    file = descriptor_pb2.FileDescriptorProto(
        name="status.proto",
        syntax="proto3",
        message_type=[descriptor_pb2.DescriptorProto(name="Status", field=fields)],
    )
    pool = descriptor_pool.DescriptorPool()  # of its own: a google.rpc.Status may be there already
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Status"))


_STATUS: Final = _status_class()
