"""Run `tagger` under TensorFlow's profiler, and print which operations and tf.data iterators took the most time.

Usage: `python -m benchmarks.traced FOLDER run --run NAME --from train --until train`. The profile is written to the
folder, for xprof. An iterator's time includes that of the iterators that it reads.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pipeline.model  # noqa: F401 - before TensorFlow, to silence its messages about CUDA
from pipeline import cli

TABLES = {"operations": re.compile(r"[^:]+:([A-Z_]\w+)$"), "tf.data's iterators": re.compile(r"(Iterator::[^#]+)")}
SHOWN = 12


def main(folder: Path, arguments: list[str]) -> None:
    """Run `tagger` with the arguments, then print a table of operations and one of iterators."""
    import tensorflow as tf

    sys.argv = ["tagger", *arguments]
    before = set(_traces(folder))
    with tf.profiler.experimental.Profile(str(folder)), suppress(SystemExit):
        cli.main()
    [trace] = set(_traces(folder)) - before
    taken = _taken(trace)
    for title, pattern in TABLES.items():
        print(f"\n{title:<64}{'ms':>8}{'times':>8}")
        named = defaultdict[str, list[float]](list)
        for name, milliseconds in taken:
            if found := pattern.match(name):
                named[found[1]].append(milliseconds)
        for name, each in sorted(named.items(), key=lambda item: -sum(item[1]))[:SHOWN]:
            print(f"{name:<64}{sum(each):>8,.0f}{len(each):>8,}")


def _traces(folder: Path) -> Iterator[Path]:
    return folder.glob("plugins/profile/*/*.xplane.pb")


def _taken(trace: Path) -> list[tuple[str, float]]:
    """Read the name and the milliseconds of each event from a profile."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    planes = XSpace.FromString(trace.read_bytes()).planes
    return [
        (plane.event_metadata[event.metadata_id].name, event.duration_ps / 1e9)
        for plane in planes
        for line in plane.lines
        for event in line.events
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
