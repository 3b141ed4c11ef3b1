"""The RabbitMQ image of the local cluster: the Debian root of a broker, dressed like the official image.

What the official image promises and a chart may count on: it runs in the foreground as user 999, logs to its output,
reads /etc/rabbitmq/conf.d/*.conf, /etc/rabbitmq/rabbitmq.conf and /etc/rabbitmq/enabled_plugins, honours the
RABBITMQ_* variables (RABBITMQ_DEFAULT_USER, RABBITMQ_DEFAULT_PASS), keeps its data and cookie in /var/lib/rabbitmq, has
its tools on the PATH, and logs in by guest from anywhere unless configured otherwise. It runs with a read-only root
when /var/lib/rabbitmq and /tmp can be written.
"""

import io
import tarfile
from pathlib import Path

from localcluster.archives import wrap_rootfs
from localcluster.images.roots import BROKER, root_tar

USER = 999

_ENTRYPOINT = """\
#!/bin/sh
# Started as root it gives that up; then it becomes the command.
set -eu
if [ "$(id -u)" = 0 ] && [ "${1#rabbitmq}" != "$1" ]; then
  chown rabbitmq:rabbitmq /var/lib/rabbitmq
  exec setpriv --reuid 999 --regid 999 --clear-groups "$0" "$@"
fi
exec "$@"
"""
_DEFAULTS = """\
# As in the official image: log to the output, and let guest in from other machines.
log.console = true
loopback_users.guest = false
"""

FILES = {
    "usr/local/bin/docker-entrypoint.sh": (0o755, 0, _ENTRYPOINT),
    "etc/rabbitmq/conf.d/10-defaults.conf": (0o644, USER, _DEFAULTS),
    "etc/rabbitmq/enabled_plugins": (0o644, USER, "[rabbitmq_prometheus].\n"),
}
"""What lies on top of the root: mode, owner, content."""

CONFIG: dict[str, object] = {
    "User": f"{USER}:{USER}",
    "Env": [
        "PATH=/opt/rabbitmq/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/var/lib/rabbitmq",
        "LANG=C.UTF-8",
        "RABBITMQ_DATA_DIR=/var/lib/rabbitmq",
        "RABBITMQ_LOGS=-",
    ],
    "Entrypoint": ["docker-entrypoint.sh"],
    "Cmd": ["rabbitmq-server"],
    "ExposedPorts": {"5672/tcp": {}, "15692/tcp": {}, "25672/tcp": {}, "4369/tcp": {}},
    "StopSignal": "SIGTERM",
    "Labels": {
        "org.opencontainers.image.title": "distriqueue-rabbitmq",
        "org.opencontainers.image.description": "RabbitMQ from Debian, for clusters without a registry",
    },
}


def broker_archive(archive: Path, *, name: str) -> Path:
    """Write the image as a docker archive.

    Args:
        archive: The file to write.
        name: Repository and tag.

    Raises:
        LocalClusterError: The root could not be made.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    dressing = archive.with_name(archive.name + ".layer")
    with tarfile.open(dressing, "w", format=tarfile.USTAR_FORMAT) as layer:
        for path, (mode, owner, content) in FILES.items():
            member = tarfile.TarInfo(path)
            member.mode, member.uid, member.gid, member.size = mode, owner, owner, len(content.encode())
            layer.addfile(member, io.BytesIO(content.encode()))
    try:
        return wrap_rootfs(root_tar(BROKER), name=name, archive=archive, config=CONFIG, more=[dressing])
    finally:
        dressing.unlink()
