import pyarrow as pa

from pipeline import posts
from pipeline.settings import Settings
from tests.conftest import TINY, write_posts


def split(folder, **values):
    settings = Settings.of(values)
    return {
        side: [row for batch in posts.split(folder, side, settings) for row in batch.column("row").to_pylist()]
        for side in posts.SIDES
    }


def test_the_sequential_split_is_the_articles(tiny_posts):
    assert split(tiny_posts, train_fraction=0.7) == {"train": [1, 2, 3, 4, 5], "test": [6, 7, 8]}


def test_the_hash_split_puts_every_post_on_one_side_by_its_content_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "ROWS_PER_BATCH", 100)
    rows = [(f"post {n}", "a") for n in range(1000)]
    before = split(write_posts(tmp_path / "before", rows), split="hash")
    assert sorted(before["train"] + before["test"]) == list(range(1, 1001))
    assert 740 < len(before["train"]) < 860

    after = split(write_posts(tmp_path / "after", [("new", "b"), *reversed(rows)]), split="hash")
    assert {1002 - row for row in after["train"] if row > 1} == set(before["train"])


def test_shards_are_cut_and_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "ROWS_PER_SHARD", 3)
    folder = write_posts(tmp_path / "ingest", TINY)
    assert [path.name for path in posts.shards(folder, "posts")] == [f"part-{n:05d}.parquet" for n in range(3)]
    assert posts.rows(folder, "posts") == 8
    assert [row for batch in posts.batches(folder, "posts", ["row"]) for row in batch[0].to_pylist()] == list(
        range(1, 9)
    )


def test_nothing_written_still_leaves_the_schema(tmp_path):
    with posts.Writer(tmp_path, "rejected") as writer:
        writer.write(pa.RecordBatch.from_pylist([], schema=posts.REJECTED))
    assert posts.rows(tmp_path, "rejected") == 0
    assert len(posts.shards(tmp_path, "rejected")) == 1
