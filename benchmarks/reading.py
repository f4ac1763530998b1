"""Measure what reading a CSV file costs, beside Arrow's own reader: `python -m benchmarks.reading [posts.csv]`.

Arrow's reader neither numbers the rows nor notices malformed ones; pipeline.sources does both.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyarrow import csv

from benchmarks.text import REAL_POSTS
from pipeline.sources import csv_file, reader
from pipeline.sources.blocks import Columns
from pipeline.sources.source import Source

ROUNDS = 7
COLUMNS = Columns("post", "tags")


def ours(path: Path) -> int:
    """Read as a run does: plain rows by Arrow, the others record by record."""
    blocks = reader.read(Source.parse(str(path)), text_column=COLUMNS.text, tag_column=COLUMNS.tag)
    return sum(block.posts.num_rows for block in blocks)


def by_record(path: Path) -> int:
    """Read all rows record by record."""
    with path.open("rb") as file:
        return sum(block.posts.num_rows for block in csv_file.record_blocks(file, path.name, COLUMNS))


def arrow(path: Path) -> int:
    """Read by Arrow's reader alone."""
    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)).num_rows  # type: ignore[no-any-return]


def cpu_seconds(read: Callable[[], int]) -> float:
    """The CPU seconds of the best of ROUNDS readings, without the first, which imports what it needs."""
    read()
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        read()
        rounds.append(time.process_time() - start)
    return min(rounds)


def main() -> None:
    """Print the CPU seconds of each way."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else REAL_POSTS
    ways = {"tagger": ours, "record by record": by_record, "pyarrow alone": arrow}
    seconds = {name: cpu_seconds(partial(read, path)) for name, read in ways.items()}
    print(f"{ours(path):,} posts\n| way | CPU s | times pyarrow's |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} | {taken / seconds['pyarrow alone']:.1f} |")


if __name__ == "__main__":
    main()
