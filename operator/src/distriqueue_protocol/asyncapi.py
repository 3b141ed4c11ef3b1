"""The protocol as an AsyncAPI 3 document, made from the messages and the names: what docs/asyncapi.yaml holds.

It is written from the side of a worker, since that is what somebody else may want to write; what a leader says to
itself (markers) is there as a message without an operation. Guarantees: nothing is said twice, so it cannot differ from
what the programs do. Schemas are in the words of JSON Schema draft 7, which every AsyncAPI tool understands.
"""

from typing import Any, Final

from distriqueue_protocol import names
from distriqueue_protocol.messages import json_schema
from distriqueue_protocol.names import MessageType, Priority

Json = dict[str, Any]

_BINDING: Final = "0.3.0"
_POOL: Final = "POOL"

_TYPES: Final = {
    "Ticket": MessageType.TICKET,
    "SessionMessage": MessageType.SESSION,
    "LeaderMessage": MessageType.ANSWER,
    "EpochCall": MessageType.EPOCH,
    "Report": MessageType.REPORT,
    "Marker": MessageType.MARKER,
}
"""The model of each message, and the `type` property by which a reader knows it."""

_INTRODUCTION: Final = f"""\
What a worker and the leader of its shard say to each other through RabbitMQ, from the side of the worker.

Bodies are JSON with camelCase keys; what is at its default is left out, and keys that a reader does not know are
ignored. Every message has the AMQP property `type`, as given here. The words (ticket, claim, grant, report,
incarnation, epoch) are explained in docs/architecture.md, and so are the rules that a worker has to keep:

- It sends its full state (a heartbeat) every {names.HEARTBEAT_SECONDS:g} s, and at once when it hears a higher epoch.
- It starts a handler only for a grant that answers a claim which is still open, from an epoch that is not old.
- {names.WORKER_FENCE_SECONDS:g} s after it sent the last heartbeat that the broker confirmed it stops its handlers;
  {names.WORKER_DEAD_SECONDS:g} s after it none is alive, and the next heartbeat is of a new incarnation.
- When it has heard no leader for {names.LEADER_SILENCE_SECONDS:g} s it closes its open claims and hands back their
  tickets.
- It repeats a report until it is settled, and acknowledges a ticket when its claim is answered.
- It declares one queue, named `worker.INCARNATION.CONNECTION` and exclusive, and binds it to the answers and to the
  epochs. All else is declared by the leader.
"""


def document() -> Json:
    """Return the document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DistriQueue worker protocol",
            "version": f"{names.PROTOCOL_VERSION}.0.0",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 4.0 or later; over TLS the protocol is amqps.",
                "variables": {"host": {"default": "distriqueue-rabbitmq:5672"}},
            }
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(
    address: str | None, description: str, *, exchange: str, kind: str, messages: tuple[str, ...], **more: object
) -> Json:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        **more,
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": kind, "durable": True, "autoDelete": False},
                "bindingVersion": _BINDING,
            }
        },
    }


def _channels() -> Json:
    # The address is made by the function that the programs use, with the parameter in its place.
    address = names.ticket_queue(_POOL, Priority.HIGH).replace(_POOL, "{pool}")
    address = address.replace(Priority.HIGH.lower(), "{priority}")
    return {
        "tickets": _channel(
            address,
            "Tickets of a pool and priority. Each has a quorum queue of the same name; the worker consumes all three "
            "of its pool, and serves the highest priority first.",
            exchange=names.TICKETS_EXCHANGE,
            kind="topic",
            messages=("Ticket",),
            parameters={
                "pool": {"description": "The pool of the worker.", "default": names.DEFAULT_POOL},
                "priority": {"enum": [priority.lower() for priority in Priority]},
            },
        ),
        "sessions": _channel(
            names.sessions_key(),
            "From workers to the leader: claims and heartbeats, in one sequence. Publish with confirms: a heartbeat "
            "renews the worker's lease when it is confirmed.",
            exchange=names.SESSIONS_EXCHANGE,
            kind="topic",
            messages=("SessionMessage",),
        ),
        "answers": _channel(
            "{incarnation}",
            "From the leader to one incarnation of a worker. The worker binds its own queue with this key, and with "
            "those of earlier incarnations whose reports are not settled yet.",
            exchange=names.ANSWERS_EXCHANGE,
            kind="direct",
            messages=("LeaderMessage",),
            parameters={"incarnation": {"description": "As in the worker's session messages."}},
        ),
        "epochs": _channel(
            None,
            f"The leader says to all workers that it leads, every {names.EPOCH_REPEAT_SECONDS:g} s. A fanout exchange: "
            "there is no routing key.",
            exchange=names.EPOCHS_EXCHANGE,
            kind="fanout",
            messages=("EpochCall",),
        ),
        "reports": _channel(
            names.report_queue(),
            "Results, to a quorum queue of the same name that the leader alone consumes. Publish mandatory, with "
            "confirms. The leader's own markers pass through it, too.",
            exchange=names.REPORTS_EXCHANGE,
            kind="direct",
            messages=("Report", "Marker"),
        ),
    }


def _operations() -> Json:
    def operation(action: str, channel: str, message: str, summary: str) -> Json:
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        }

    return {
        "receiveTicket": operation("receive", "tickets", "Ticket", "Learn of a job that could be claimed."),
        "sendSessionMessage": operation("send", "sessions", "SessionMessage", "Claim jobs, and say all that is held."),
        "receiveAnswer": operation("receive", "answers", "LeaderMessage", "Grants, refusals, settlements, stops."),
        "receiveEpoch": operation("receive", "epochs", "EpochCall", "Hear who leads."),
        "sendReport": operation("send", "reports", "Report", "Say how an attempt ended, until it is settled."),
    }


def _messages() -> Json:
    schemas = json_schema()
    return {
        name: {
            "name": kind.value,
            "title": name,
            "summary": schemas[name]["description"].partition("\n\n")[0],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "bindings": {"amqp": {"messageType": kind.value, "bindingVersion": _BINDING}},
        }
        for name, kind in _TYPES.items()
    }


def _schemas() -> Json:
    """All models, those within others beside them."""
    schemas: Json = {}
    for name, schema in json_schema().items():
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    return {name: _in_draft_7(schemas[name]) for name in sorted(schemas)}


def _in_draft_7(schema: object) -> Any:
    """Rewrite a schema of pydantic's (2020-12): references, tuples, and no titles that only repeat a key."""
    if isinstance(schema, list):
        return [_in_draft_7(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    plain: Json = {}
    for key, value in schema.items():
        if key == "$ref":
            plain[key] = value.replace("#/$defs/", "#/components/schemas/")
        elif key == "prefixItems":
            plain["items"] = _in_draft_7(value)
        elif key == "properties":
            plain[key] = {name: _in_draft_7(entry) for name, entry in value.items()}
        elif key != "title":
            plain[key] = _in_draft_7(value)
    return plain
