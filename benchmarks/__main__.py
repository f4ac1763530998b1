"""`python -m benchmarks`: print the table, a part as soon as it is measured, and write benchmarks/results.json."""

import json
import os
import platform
from pathlib import Path

from benchmarks.scheduled import scheduled_rows
from benchmarks.table import head, lines
from benchmarks.text import load, text_rows
from benchmarks.training import training_rows
from benchmarks.whole import parse_rows, whole_rows

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Measure everything; text and training last, because from then on TensorFlow's threads are in this process."""
    data, source, posts = load()
    print(f"{len(posts):,} posts ({data}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{head()}")
    parts = (
        parse_rows,
        lambda: whole_rows(source),
        lambda: scheduled_rows(source),
        lambda: text_rows(posts),
        lambda: training_rows(source),
    )
    rows = []
    for part in parts:
        rows += (measured := part())
        print(lines(measured), flush=True)
    told = {"data": data, "machine": platform.machine(), "rows": [row.told() for row in rows]}
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
