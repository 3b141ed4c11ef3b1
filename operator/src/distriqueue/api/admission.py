"""The admission policy: what the schema cannot see. Work in progress."""

from typing import Any


def admission_manifests() -> list[dict[str, Any]]:
    """Return the ValidatingAdmissionPolicy and its binding."""
    return []
