"""Answers that are models: from a view to bytes, once."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response

JSON: Final = "application/json"


def shown(model: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that is a model; what it does not know is left out.

    Args:
        model: What is shown.
        status: HTTP status.
        headers: Further headers.
    """
    return Response(written(model), status_code=status, media_type=JSON, headers=headers)


def written(model: BaseModel) -> bytes:
    """Return a model as JSON; what it does not know is left out."""
    return model.model_dump_json(by_alias=True, exclude_none=True).encode()
