"""Measure memory and time of each stage for growing numbers of posts: `python -m benchmarks.flat [rows ...]`.

The posts are synthetic, 1,000 characters on average, in one Parquet file. Each stage runs in its own process. Its peak
of memory is sampled ten times a second and includes imports, fetching and committing, and the processes that it starts
(`ingest` decodes Parquet in one, `export` runs the parity check in one). Its seconds are those of its work alone. All
sizes share a store, so from the second size on `evaluate` compares with the live model.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from benchmarks.process import spent
from pipeline.data import posts
from pipeline.sources import sample
from pipeline.stages.plan import STAGES

ROWS = (10_000, 30_000, 100_000)
MORE = 205
"""Characters by which each post is lengthened, by repeating its beginning: synthetic posts have 795 on average."""

BLOCKS_PER_GROUP = 64
TAGGER = str(Path(sys.executable).with_name("tagger"))
HERE = Path(__file__).parent
LINE = "  {stage:<15}{peak_mib:>8,.0f} MiB{cpu_seconds:>9.1f} s CPU{seconds:>9.1f} s"


def main(sizes: list[int], folder: Path = HERE, stages: Iterable[str] = STAGES) -> None:
    """Measure all sizes, print a table, and write flat.json and flat.png to the folder."""
    stages = list(stages)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    measured = list[dict[str, Any]]()
    with TemporaryDirectory(prefix="tagger-flat-") as scratch:
        for rows in sizes:
            source = Path(scratch, "posts.parquet")
            size = write(source, rows)
            print(f"{rows:,} posts of {size / rows:,.0f} characters")
            for stage in stages:
                row = _measured(stage, source, rows)
                measured.append(row)
                print(LINE.format(**row))
                (folder / "flat.json").write_text(json.dumps(measured, indent=2) + "\n")
    if len(sizes) > 1:
        print(f"\nfrom {sizes[-2]:,} to {sizes[-1]:,} posts")
        for stage in stages:
            less, more = (each for each in measured if each["stage"] == stage and each["rows"] in sizes[-2:])
            growth = {name: more[name] / less[name] for name in ("peak_mib", "cpu_seconds", "seconds")}
            print("  {0:<15}{peak_mib:>8.2f} x  {cpu_seconds:>9.1f} x CPU{seconds:>9.1f} x".format(stage, **growth))
    draw(measured, folder / "flat.png")


def write(path: Path, rows: int) -> int:
    """Write synthetic posts to one Parquet file, and return their total number of characters."""
    characters = 0
    with pq.ParquetWriter(path, posts.POSTS.remove(2)) as file:
        waiting = list[pa.RecordBatch]()
        for block in sample.blocks(rows, seed=0):
            waiting.append(_longer(block))
            characters += pc.sum(pc.utf8_length(waiting[-1].column("post"))).as_py()
            if len(waiting) == BLOCKS_PER_GROUP:
                file.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
        if waiting:
            file.write_table(pa.Table.from_batches(waiting))
    return characters


def _longer(block: pa.RecordBatch) -> pa.RecordBatch:
    """Lengthen each post by its own first MORE characters."""
    post = block.column("post")
    more = pc.utf8_slice_codeunits(post, 0, MORE)
    columns = [pc.binary_join_element_wise(post, more, " "), block.column("tag")]
    return pa.RecordBatch.from_arrays(columns, schema=posts.POSTS.remove(2))


def _measured(stage: str, source: Path, rows: int) -> dict[str, Any]:
    """Run one stage with `tagger` and return its peak of memory and its seconds."""
    store = ["--store", str(source.parent / "store")]
    command = [TAGGER, "run", *store, "--run", f"flat-{rows}", "--from", stage, "--until", stage]
    if stage == "ingest":
        settings = ("tag_column=tag", "epochs=1", "min_accuracy=0")
        command += ["--source", str(source), *(word for setting in settings for word in ("--set", setting))]
    took = spent(command)
    shown = json.loads(spent([TAGGER, "show", *store, "--json", f"flat-{rows}"]).printed)["stages"][stage]
    of_its_work = {name: shown[name] for name in ("cpu_seconds", "seconds")}
    return {"stage": stage, "rows": rows, "peak_mib": round(took.peak_mib, 1), **of_its_work}


def draw(measured: list[dict[str, Any]], path: Path) -> None:
    """Plot peak memory and CPU seconds by the number of posts, a line for each stage."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    both = (("peak_mib", "peak memory, MiB"), ("cpu_seconds", "CPU seconds"))
    for axes, (name, title) in zip(figure.subplots(1, 2), both, strict=True):
        for stage in dict.fromkeys(each["stage"] for each in measured):
            points = [(each["rows"], each[name]) for each in measured if each["stage"] == stage]
            axes.plot(*zip(*points, strict=True), marker="o", label=stage)
        axes.set(xscale="log", yscale="log", xlabel="posts of 1 KB", title=title)
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main([int(rows) for rows in sys.argv[1:]] or list(ROWS))
