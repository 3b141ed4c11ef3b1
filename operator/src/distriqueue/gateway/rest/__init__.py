"""The REST door: the gateway's services as JSON over HTTP, with live events, described by OpenAPI."""
