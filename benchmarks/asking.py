"""Print how many posts of a file are tagged per second, without loading the model.

Usage: `python -m benchmarks.asking MODEL POSTS`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import progress
from pipeline.scoring import predict
from pipeline.settings.deployment import MAX_SOURCE_BYTES
from pipeline.sources.source import Source

took = list[float]()


@contextmanager
def _clock(*_: object) -> Iterator[progress.Advance]:
    """Time the display of progress, which begins when the model is loaded."""
    start = time.perf_counter()
    yield lambda _: None
    took.append(time.perf_counter() - start)


if __name__ == "__main__":
    model, source = sys.argv[1:]
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        done = predict.tag_file(
            Path(model), Source.parse(source), Path(scratch, "tags.parquet"), "post", MAX_SOURCE_BYTES, _clock
        )
    print(done.posts / took[0])
