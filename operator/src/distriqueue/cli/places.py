"""Where a command is to look: kubeconfig, context and namespace, as they were given on the command line.

Nothing but the three words; imports nothing, because every command has it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """See the module; None for what was not given."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
