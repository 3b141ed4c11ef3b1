"""Messages and queue names between leader and workers; pydantic alone."""
