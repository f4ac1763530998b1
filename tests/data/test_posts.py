import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import posts
from pipeline.settings import Settings
from tests.conftest import TINY, files_of, write_posts


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
    monkeypatch.setattr(posts, "ROWS_PER_FILE", 3)
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


def numbered(count, start=1):
    rows = [{"indices": [1], "values": [1.0], "label": 0, "row": row} for row in range(start, start + count)]
    return pa.RecordBatch.from_pylist(rows, schema=posts.VECTORS)


def written(folder, counts):
    start = 1
    with posts.Writer(folder, "train") as writer:
        for count in counts:
            writer.write(numbered(count, start))
            start += count
    return files_of(folder)


def test_how_vectors_are_cut_depends_on_the_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(posts, "ROWS_PER_FILE", 8)
    every = [written(tmp_path / str(n), counts) for n, counts in enumerate(([19], [1] * 19, [7, 0, 12]))]
    assert len(every[0]) == 3
    assert every[0] == every[1] == every[2]


def test_long_posts_do_not_wait_for_a_whole_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "BYTES_WAITING", 1000)
    batch = pa.RecordBatch.from_pylist([{"post": "long " * 100, "tag": "a", "row": 1}], schema=posts.POSTS)
    with posts.Writer(tmp_path, "posts") as writer:
        for _ in range(9):
            writer.write(batch)
    (path,) = posts.shards(tmp_path, "posts")
    assert (pq.ParquetFile(path).num_row_groups, posts.rows(tmp_path, "posts")) == (5, 9)


@pytest.mark.parametrize("values", [{}, {"split": "hash"}])
@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_each_piece_of_a_cut_knows_its_place_in_the_split(tmp_path, count, values):
    whole = split(write_posts(tmp_path / "whole", TINY), **values)
    folder = write_posts(tmp_path / "cut", TINY)
    posts.cut(folder, "posts", count)
    assert sorted(path.name for path in folder.iterdir()) == ["posts"]
    assert len(posts.shards(folder, "posts")) == count
    assert split(folder, **values) == whole
    pieces = []
    for path in posts.shards(folder, "posts"):
        (tmp_path / path.stem / "posts").mkdir(parents=True)
        path.rename(tmp_path / path.stem / "posts" / path.name)
        pieces.append(split(tmp_path / path.stem, **values))
    assert {side: [row for piece in pieces for row in piece[side]] for side in posts.SIDES} == whole
