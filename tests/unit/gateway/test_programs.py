"""What a replica of the gateway reserves before it starts."""

from distriqueue.gateway.programs import connections
from distriqueue.gateway.settings import GatewaySettings


def test_each_watched_namespace_has_a_connection_that_nobody_else_waits_for() -> None:
    few = GatewaySettings.model_validate({"namespaces": "a"})
    many = GatewaySettings.model_validate({"namespaces": ",".join(f"team-{number}" for number in range(100))})
    assert connections(many) - connections(few) == 99
