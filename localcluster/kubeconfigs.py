"""Kubeconfig files: one cluster, one user, everything embedded, so that the file can be copied anywhere.

They are written as JSON, which is YAML too, by rename: a reader never sees half a file. Readable by the owner alone,
as they hold a private key or a token.
"""

import base64
import json
import os
from pathlib import Path


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: Path,
    client: tuple[Path, Path] | None = None,
    token: str | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig and return its path.

    Args:
        path: The file to write.
        server: The URL of the API server.
        authority: The certificate that the server's must be signed by.
        client: Certificate and key to show to the server.
        token: A bearer token to show instead.
        namespace: The namespace of requests that name none.
    """
    user: dict[str, str] = {}
    if client is not None:
        user["client-certificate-data"], user["client-key-data"] = (_embedded(file) for file in client)
    if token is not None:
        user["token"] = token
    cluster = {"server": server, "certificate-authority-data": _embedded(authority)}
    context = {"cluster": "local", "user": "local", "namespace": namespace}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "local", "user": user}],
        "contexts": [{"name": "local", "context": context}],
        "current-context": "local",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    unfinished.rename(path)
    return path


def _embedded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
