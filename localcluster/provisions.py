"""What a new cluster gets applied: a StorageClass with volumes, and the right of its DNS to read Services.

A Kubernetes of one node has nothing that makes volumes on demand, so there are some ready-made ones: directories of the
machine. A claim binds one of them when its pod is scheduled, and its data survives the pod. A volume whose claim was
deleted is emptied and offered again by the next :func:`apply`.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from localcluster.apis import ApiClient, ApiError
from localcluster.errors import NotReadyError

STORAGE_CLASS = "standard"
"""The name of the (default) StorageClass."""

VOLUMES = 24
"""How many volumes there are: each claim takes a whole one, whatever its size."""

_CAPACITY = "16Gi"
_COLLECTION = "/api/v1/persistentvolumes"
_DELETE_SECONDS = 30
_HTTP_NOT_FOUND = 404


def apply(api: ApiClient, *, volumes: Path) -> None:
    """Apply everything; what is there already stays as it is.

    Args:
        api: The API server, as an administrator.
        volumes: The directory that holds a directory for each volume.
    """
    api.apply("/apis/storage.k8s.io/v1/storageclasses", _storage_class())
    for number in range(1, VOLUMES + 1):
        _apply_volume(api, name=f"local-{number:02}", directory=volumes / f"{number:02}")
    api.apply("/apis/rbac.authorization.k8s.io/v1/clusterroles", _dns_role())
    api.apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", _dns_binding())


def _apply_volume(api: ApiClient, *, name: str, directory: Path) -> None:
    phase = _phase(api, name)
    if phase in {"Released", "Failed"}:
        api.request("DELETE", f"{_COLLECTION}/{name}")
        deadline = time.monotonic() + _DELETE_SECONDS
        while (phase := _phase(api, name)) is not None:  # a controller has the last word
            if time.monotonic() > deadline:
                raise NotReadyError(f"volume {name} was deleted, and is still there after {_DELETE_SECONDS} s")
            time.sleep(0.1)
    if phase is None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        # The kubelet gives such volumes to no group (fsGroup), so everybody may write.
        directory.chmod(0o777)
        api.apply(_COLLECTION, _volume(name, directory))


def _phase(api: ApiClient, name: str) -> str | None:
    """Return a volume's phase, or None when there is no such volume."""
    try:
        return str(api.get(f"{_COLLECTION}/{name}")["status"].get("phase", "Pending"))
    except ApiError as error:
        if error.status == _HTTP_NOT_FOUND:
            return None
        raise


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(name: str, directory: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "capacity": {"storage": _CAPACITY},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(directory), "type": "Directory"},
        },
    }


def _dns_role() -> dict[str, Any]:
    watch = ["list", "watch"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "localcluster:dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces", "pods", "services"], "verbs": watch},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
        ],
    }


def _dns_binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "localcluster:dns"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "localcluster:dns"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "system:coredns"}],
    }
