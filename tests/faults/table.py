"""The table in docs/reliability.md, from the rows that full runs left: `python -m tests.faults.table`.

Guarantees: only what stands between the two marker comments is replaced, and nothing is when there are no rows.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.faults.drills import Row, results

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
FAMILIES = (
    "Operator",
    "Worker",
    "RabbitMQ",
    "Kubernetes",
    "Network",
    "Rolling restarts and deletions",
    "Messages",
    "Handlers",
    "Machine",
    "Failpoints",
)
COLUMNS = (
    "fault",
    "promised",
    "jobs",
    "lost",
    "accepted per job",
    "live at once",
    "overlap, ms",
    "repeated",
    "first start, s",
    "all final, s",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def rows(directory: Path) -> list[Row]:
    """The rows of a directory."""
    return [Row(**json.loads(file.read_text())) for file in sorted(directory.glob("*.json"))]


def line(row: Row) -> str:
    """A line of the table."""
    repeated = f"{row.repeated}: {row.why}" if row.repeated and row.why else str(row.repeated)
    first = "" if row.first_start_seconds is None else f"{row.first_start_seconds:.1f}"
    promise = f"{row.promise}. {row.note}" if row.note else row.promise
    overlap = f"{row.overlap_ms:.0f}"
    cells = (
        row.fault,
        promise,
        row.jobs,
        row.lost,
        row.accepted,
        row.at_once,
        overlap,
        repeated,
        first,
        f"{row.all_final_seconds:.1f}",
    )
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def tables(found: Iterable[Row]) -> str:
    """One table for each family."""
    everything = list(found)
    parts = []
    for family in FAMILIES:
        lines = [line(row) for row in everything if row.family == family]
        if lines:
            parts.append(f"### {family}\n\n{HEADER}{''.join(lines)}")
    return "\n".join(parts)


def render(page: str, found: Iterable[Row]) -> str:
    """The page with these rows."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(found)}\n{END}{after}"


def main() -> int:
    """Render the page; 1 when there is nothing to render."""
    found = rows(results())
    if not found:
        sys.stderr.write(f"no rows in {results()}: run `make faults`\n")
        return 1
    PAGE.write_text(render(PAGE.read_text(), found))
    sys.stdout.write(f"{len(found)} rows in {PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
