"""Memory of the stages without TensorFlow, each in a process of its own: it does not follow the number of posts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.data.vocabulary import count
from pipeline.store.objects import Store
from pipeline.store.runs import Run

FEW, MANY = 25_000, 200_000
ALLOWED = 56.0
"""MiB beside 140 of text by which MANY posts are more. What is held of some batches is not yet full at FEW."""

# Arrow's own pool keeps some 30 MiB more or less from run to run, which hides what the stages hold.
ENVIRONMENT = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}

STAGES = ("ingest", "fit_vocabulary", "vectorize")
TAGGER = Path(sys.executable).with_name("tagger")


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float | None]]:
    """For each stage its peak at FEW posts and at MANY, in MiB."""
    store = tmp_path_factory.mktemp("flat") / "store"
    for rows in (FEW, MANY):
        for stage in STAGES:
            command = [TAGGER, "run", "--store", store, "--run", str(rows), "--from", stage, "--until", stage]
            source = ["--source", f"sample://posts?rows={rows}&seed=0"] if stage == "ingest" else []
            subprocess.run([*command, *source], check=True, capture_output=True, env=ENVIRONMENT)
    manifests = [Run(Store(str(store)), str(rows)).manifests() for rows in (FEW, MANY)]
    return {stage: [each[stage].peak_mib for each in manifests] for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_memory_does_not_grow_with_the_posts(peaks, stage):
    few, many = peaks[stage]
    if few is None:
        pytest.skip("needs a system that tells a process's peak memory")
    assert many - few < ALLOWED


def test_a_million_distinct_words_are_counted():
    number = 1_000_000
    order = np.random.default_rng(0).permutation(number).reshape(-1, 100)
    texts = [" ".join(f"word{each}" for each in row) for row in order.tolist()]
    (counts,) = count(pa.array(texts[start : start + 1000]) for start in range(0, len(texts), 1000))
    assert counts.words.to_pylist() == [f"word{each}" for each in order.ravel().tolist()]
    assert (counts.counts == 1).all()
    assert (counts.document_counts == 1).all()
