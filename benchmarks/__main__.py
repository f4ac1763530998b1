"""Run all benchmarks, print a table of the results, and write benchmarks/results.json: `python -m benchmarks`."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.scheduled import scheduled_rows
from benchmarks.table import Row, head, lines
from benchmarks.text import load, text_rows
from benchmarks.training import training_rows
from benchmarks.whole import parse_rows, whole, whole_rows
from benchmarks.wide import pair_rows, tuned_rows

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Run the benchmarks in turn and print each one's rows when they are measured."""
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        data, source, posts = load(Path(scratch))
        print(f"{len(posts):,} posts ({data}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{head()}")
        rows = list[Row]()
        for measured in _benchmarks(source, posts):
            rows += measured
            print(lines(measured), flush=True)
    results = {"data": data, "machine": platform.machine(), "rows": [row.to_dict() for row in rows]}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _benchmarks(source: str, posts: list[str]) -> Iterator[list[Row]]:
    """Yield the rows of each benchmark.

    Text and training come last, because they start TensorFlow's threads in this process.
    """
    yield parse_rows()
    scripts = whole(source)
    yield whole_rows(scripts)
    yield scheduled_rows(source, scripts.notebook_cpu)
    yield text_rows(posts)
    yield training_rows(source)
    yield pair_rows(posts)
    yield tuned_rows(source)


if __name__ == "__main__":
    main()
