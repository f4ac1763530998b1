"""Posts a second of tagging a file, from when the model is loaded: `python -m benchmarks.asking MODEL POSTS`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import progress
from pipeline.execution import predict
from pipeline.settings import MAX_SOURCE_BYTES

took = list[float]()


@contextmanager
def _clock(*_: object) -> Iterator[progress.Advance]:
    """The display of progress begins when the model is loaded."""
    start = time.perf_counter()
    yield lambda _: None
    took.append(time.perf_counter() - start)


if __name__ == "__main__":
    model, source = sys.argv[1:]
    progress.show_with(_clock)
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        done = predict.tag_file(Path(model), source, Path(scratch, "tags.parquet"), "post", MAX_SOURCE_BYTES)
    print(done.posts / took[0])
