import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import posts
from tests.conftest import TINY, files_of, write_posts


def rows_by_side(folder):
    return {
        side: [row for batch in posts.batches(folder, posts.of_side(side)) for row in batch.column("row").to_pylist()]
        for side in posts.SIDES
        if (folder / posts.of_side(side)).exists()
    }


def write_unsplit(folder, rows):
    numbered = [{"post": text, "tag": tag, "row": row} for row, (text, tag) in enumerate(rows, 1)]
    with posts.Writer(folder, "posts") as writer:
        for row in numbered:
            writer.write(pa.RecordBatch.from_pylist([row], schema=posts.POSTS))
    return folder


@pytest.mark.parametrize("rows_per_file", [1, 3, 100])
@pytest.mark.parametrize("first_test", range(9))
def test_posts_are_split_at_the_first_test_post(tmp_path, monkeypatch, rows_per_file, first_test):
    monkeypatch.setattr(posts, "ROWS_PER_FILE", rows_per_file)
    monkeypatch.setattr(posts, "ROWS_PER_GROUP", 2)
    posts.divide(write_unsplit(tmp_path, TINY), first_test)
    assert rows_by_side(tmp_path) == {"train": [*range(1, first_test + 1)], "test": [*range(first_test + 1, 9)]}
    assert posts.shards(tmp_path, "posts") == []


def test_validation_posts_are_train_posts_chosen_by_their_text_alone(tmp_path):
    def cut(folder, texts):
        posts.divide(write_unsplit(folder, [(text, "a") for text in texts]), len(texts) - 100)
        before = rows_by_side(folder)
        posts.cut_validation(folder, 0.2)
        after = rows_by_side(folder)
        assert sorted(after["train"] + after["validation"]) == before["train"]
        assert after["test"] == before["test"]
        assert sorted(path.name for path in folder.iterdir()) == ["posts"]
        return {texts[row - 1] for row in after["validation"]}

    texts = [f"post {number % 600}" for number in range(1100)]  # with copies
    chosen = cut(tmp_path / "a", texts)
    assert 80 < len(chosen) < 160
    assert cut(tmp_path / "b", [*reversed(texts[:1000]), *texts[1000:]]) == chosen
    kept = {text for text in texts[:1000] if text not in chosen}
    assert not chosen & kept


def test_the_test_posts_can_be_dropped(tmp_path):
    posts.divide(write_unsplit(tmp_path, TINY), 5)
    posts.drop(tmp_path, "test")
    assert rows_by_side(tmp_path) == {"train": [1, 2, 3, 4, 5], "test": []}


def test_the_sequential_split_is_the_articles():
    assert posts.first_test_post(8, 0.7) == 5
    assert posts.first_test_post(40_000, 0.8) == 32_000


def test_a_split_by_content_depends_on_each_posts_text_alone():
    texts = [f"post {n}" for n in range(1000)]

    def trains(texts):
        return posts.trains(pa.RecordBatch.from_pydict({"post": texts}), 0.8)

    before = trains(texts)
    assert 740 < before.sum() < 860
    assert trains(["new", *reversed(texts)])[1:].tolist() == before[::-1].tolist()


def test_files_are_written_and_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "ROWS_PER_FILE", 3)
    folder = write_unsplit(tmp_path / "ingest", TINY)
    assert [path.name for path in posts.shards(folder, "posts")] == [f"part-{n:05d}.parquet" for n in range(3)]
    assert posts.rows(folder, "posts") == 8
    assert [row for batch in posts.batches(folder, "posts", ["row"]) for row in batch[0].to_pylist()] == list(
        range(1, 9)
    )


def test_an_empty_kind_still_has_its_schema(tmp_path):
    with posts.Writer(tmp_path, "rejected") as writer:
        writer.write(pa.RecordBatch.from_pylist([], schema=posts.REJECTED))
    assert posts.rows(tmp_path, "rejected") == 0
    assert len(posts.shards(tmp_path, "rejected")) == 1


@pytest.mark.parametrize(
    ("count", "expected"), [(100, range(1, 11)), (10, range(1, 11)), (5, [1, 3, 5, 7, 9]), (3, [1, 5, 9]), (1, [1])]
)
def test_rows_are_taken_evenly_from_the_whole_of_a_kind(tmp_path, monkeypatch, count, expected):
    monkeypatch.setattr(posts, "ROWS_PER_FILE", 3)
    monkeypatch.setattr(posts, "ROWS_PER_GROUP", 3)
    write_unsplit(tmp_path, [("a post", "a")] * 10)
    assert posts.spread(tmp_path, "posts", count).column("row").to_pylist() == list(expected)


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


def test_the_files_of_vectors_depend_on_the_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(posts, "ROWS_PER_FILE", 8)
    every = [written(tmp_path / str(n), counts) for n, counts in enumerate(([19], [1] * 19, [7, 0, 12]))]
    assert len(every[0]) == 3
    assert every[0] == every[1] == every[2]


def test_long_posts_end_a_row_group_early(tmp_path, monkeypatch):
    monkeypatch.setattr(posts, "MAX_BUFFERED_BYTES", 1000)
    batch = pa.RecordBatch.from_pylist([{"post": "long " * 100, "tag": "a", "row": 1}], schema=posts.POSTS)
    with posts.Writer(tmp_path, "posts") as writer:
        for _ in range(9):
            writer.write(batch)
    (path,) = posts.shards(tmp_path, "posts")
    assert (pq.ParquetFile(path).num_row_groups, posts.rows(tmp_path, "posts")) == (5, 9)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_resharding_keeps_the_order_and_makes_shards_of_equal_size(tmp_path, count):
    folder = write_posts(tmp_path, TINY, train_fraction=1)
    posts.reshard(folder, "posts/train", count)
    assert rows_by_side(folder) == {"train": [*range(1, 9)], "validation": [], "test": []}
    sizes = [pq.read_metadata(path).num_rows for path in posts.shards(folder, "posts/train")]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert sorted(path.name for path in folder.iterdir()) == ["posts"]


def test_a_shard_is_one_file_of_each_side():
    names = [f"posts/{side}/part-{n:05d}.parquet" for side in ("test", "validation", "train") for n in (1, 0)]
    assert posts.shard_files([*names, "rejected/part-00000.parquet"], 1, 2) == [
        "posts/train/part-00001.parquet",
        "posts/validation/part-00001.parquet",
        "posts/test/part-00001.parquet",
    ]
