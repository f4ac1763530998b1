"""Measure what warm_start=live saves when the posts grow by a week: `python -m benchmarks.warm_start [posts.csv]`.

The model of the first week learned from nine tenths of the first half of the posts; the second week learns from that
half whole, from random weights and from the live model's. Both are tested on the second half.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.several_tags import REAL_POSTS
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run

EPOCHS = (1, 2, 3, 4)


def accuracy(store: Store, name: str, until: str, **settings: object) -> tuple[float, int]:
    """Run the stages until one of them; the accuracy on the test posts, and the steps of the training."""
    run, number = Run(store, name), len(store.folders("runs"))
    run.begin(
        Settings.of({"min_accuracy": 0, "max_regression": 1} | settings), datetime.now(UTC) + timedelta(hours=number)
    )
    for stage in STAGES:
        run_stage(stage, run)
        if stage == until:
            break
    summaries = {stage: manifest.summary for stage, manifest in run.manifests().items()}
    return summaries["evaluate"]["accuracy"], summaries["train"]["steps"]


def main() -> None:
    """Print a row for random weights and one for the live model's."""
    data = pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else REAL_POSTS)
    half = len(data) // 2
    known = half * 9 // 10
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        first, second, store = Path(scratch, "first.csv"), Path(scratch, "second.csv"), Store(f"{scratch}/store")
        pd.concat([data[:known], data[half:]]).to_csv(first, index=False)
        data.to_csv(second, index=False)
        fraction = (known + 0.5) / (known + len(data) - half)
        live, _ = accuracy(store, "first", "export", source=str(first), train_fraction=fraction, epochs=3)
        print(f"live: {live:.4f}, of {known:,} posts; the second week has {half:,}")
        print(f"| epochs | {' | '.join(map(str, EPOCHS))} |\n|---|{'---|' * len(EPOCHS)}")
        for warm in ("none", "live"):
            found = [
                accuracy(
                    store,
                    f"{warm}{epochs}",
                    "evaluate",
                    source=str(second),
                    train_fraction=0.5,
                    epochs=epochs,
                    warm_start=warm,
                )
                for epochs in EPOCHS
            ]
            cells = [f"{reached:.4f} ({steps} steps)" for reached, steps in found]
            print(f"| warm_start={warm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
