"""What is mounted below a directory: kubelet and containerd leave mounts behind when they are killed."""

import re
from pathlib import Path

from localcluster.commands import succeeds
from localcluster.errors import LocalClusterError


def mounted_below(directory: Path) -> list[Path]:
    """Return the mount points below a directory, the innermost and latest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes blanks and the like as octal escapes.
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]))
        if point.is_relative_to(directory) and point != directory:
            points.append(point)
    return points[::-1]


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, also what is still in use (it then goes when its last user does).

    Raises:
        LocalClusterError: Something is still mounted. Nothing below may be deleted then: it could be somebody's data.
    """
    for point in mounted_below(directory):
        succeeds(["umount", "--lazy", str(point)])
    if left := mounted_below(directory):
        raise LocalClusterError(f"still mounted, unmount by hand: {', '.join(map(str, left))}")
