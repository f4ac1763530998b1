"""Measure how often drift is warned of where there is none: `python -m benchmarks.drift [posts.csv]`.

Of 16,000 posts 8,000 are learned from. Of the others so many are taken at random, 200 times, as new posts. A row for
each number of posts says in how many of the 200 a figure is above its `warn_` limit: without regard to chance, and
beyond chance, as `tagger watch` and the check before training count. The last rows have posts that did drift.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.checks import drift
from pipeline.checks.chance import Sample, effective_posts
from pipeline.data import posts
from pipeline.data.vocabulary import Vocabulary, count_words
from pipeline.settings import Settings
from pipeline.sources import sample

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"

LEARNED, REPEATS = 8_000, 200
POSTS = (1, 3, 10, 30, 100, 300, 1000, 4000)
DRIFTED = (30, 300, 3000)


class Learned:
    """A model's posts, and what is measured of others beside them."""

    def __init__(self, table: pa.Table, vocabulary_size: int) -> None:
        self.vocabulary = count_words(_texts(table), size=vocabulary_size)
        self.corpus = _corpus(table, self.vocabulary)
        self.sample = Sample.of(table, self.vocabulary, several=False)
        self.chance = cache(self._chance)

    def _chance(self, new_posts: int) -> drift.Drift:
        return self.sample.by_chance(effective_posts(new_posts, self.vocabulary.documents))

    def warnings(self, table: pa.Table, chance: drift.Drift) -> set[str]:
        """The figures above their limits."""
        now = _corpus(table, count_words(_texts(table), size=20_001))
        measured = asdict(drift.measure(now, self.corpus, chance))
        return {name for name, figure in measured.items() if figure > getattr(Settings(), f"warn_{name}")}


def _texts(table: pa.Table) -> Iterator[pa.Array]:
    yield table.column("post").combine_chunks()


def _corpus(table: pa.Table, vocabulary: Vocabulary) -> drift.Corpus:
    median = float(np.median(pc.utf8_length(table.column("post")).to_numpy()))
    counts = dict(zip(vocabulary.words.to_pylist(), vocabulary.counts.tolist(), strict=True))
    return drift.Corpus(posts.tally(table.column("tag")), median, counts, vocabulary.occurrences)


def shares(learned: Learned, pool: pa.Table, size: int, *, by_chance: bool) -> str:
    """In how much of the REPEATS a figure is above its limit, and which figures."""
    random, found, any_figure = np.random.default_rng(size), Counter[str](), 0
    chance = learned.chance(size) if by_chance else drift.NO_DRIFT
    for _ in range(REPEATS):
        some = pool.take(pa.array(random.choice(len(pool), min(size, len(pool)), replace=False)))
        warnings = learned.warnings(some, chance)
        found.update(warnings)
        any_figure += bool(warnings)
    which = ", ".join(f"{name.replace('_', ' ')} {count / REPEATS:.1%}" for name, count in found.most_common())
    return f"{any_figure / REPEATS:.1%}{f' ({which})' if which and by_chance else ''}"


def drifted(pool: pa.Table) -> dict[str, pa.Table]:
    """The posts in three ways that a model does not expect."""
    cut = pool.set_column(0, "post", pc.utf8_slice_codeunits(pool.column("post"), 0, 60))
    tag = pool.column("tag")[0]
    return {"cut to 60 characters": cut, f"of the tag {tag} only": pool.filter(pc.equal(pool.column("tag"), tag))}


def table_of(name: str, every: pa.Table, vocabulary_size: int) -> None:
    """Print the rows for these posts."""
    mixed = every.take(pa.array(np.random.default_rng(0).permutation(len(every))))
    learned, pool = Learned(mixed.slice(0, LEARNED), vocabulary_size), mixed.slice(LEARNED)
    about = f"{name}, {vocabulary_size:,} words"
    for size in POSTS:
        before, after = (shares(learned, pool, size, by_chance=each) for each in (False, True))
        print(f"| {about} | {size:,} | {before} | {after} |", flush=True)
    for what, changed in drifted(pool).items():
        for size in DRIFTED:
            before, after = (shares(learned, changed, size, by_chance=each) for each in (False, True))
            print(f"| {about}, {what} | {size:,} | {before} | {after} |", flush=True)


def main() -> None:
    """Print a table of Markdown."""
    real = pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else REAL_POSTS)
    rows = {"post": real["post"], "tag": real["tags"], "row": range(len(real))}
    print("| posts | new posts | warned, with chance | warned, beyond chance |")
    print("|---|---|---|---|")
    table_of("synthetic", pa.Table.from_batches(sample.blocks(16_000, 0)), 1000)
    for vocabulary_size in (1000, 20_000):
        table_of("real", pa.table(rows, schema=posts.POSTS), vocabulary_size)


if __name__ == "__main__":
    main()
