from dataclasses import asdict

import pytest

from pipeline.data import posts
from pipeline.settings import Settings
from pipeline.stages import accounting, fit_vocabulary, vectorize
from tests.conftest import TINY, context_of, write_posts


@pytest.fixture
def vectorized(tmp_path):
    def through(rows=TINY, **values):
        settings = Settings.of({"train_fraction": 0.75, "vocabulary_size": 4, "max_rejected_fraction": 0.5} | values)
        inputs = {
            "ingest": write_posts(tmp_path / "ingest", rows, settings.train_fraction),
            "fit_vocabulary": tmp_path / "fit_vocabulary",
        }
        for stage, module in (("fit_vocabulary", fit_vocabulary), ("vectorize", vectorize)):
            (tmp_path / stage).mkdir()
            summary = module.run(inputs, tmp_path / stage, settings, context_of(settings))
        return summary, tmp_path / "vectorize"

    return through


def rows_of(folder, side):
    return [row for batch in posts.batches(folder, side) for row in batch.to_pylist()]


def test_vectors_of_both_splits(vectorized):
    summary, folder = vectorized(vector_mode="count")
    assert rows_of(folder, "train")[3:5] == [
        {"indices": [1], "values": [2.0], "label": 0, "row": 4},  # java thread and java lock
        {"indices": [2, 3], "values": [1.0, 1.0], "label": 1, "row": 5},  # print a python dict
    ]
    assert rows_of(folder, "test") == [
        {"indices": [2], "values": [1.0], "label": 1, "row": 7},
        {"indices": [1], "values": [1.0], "label": 0, "row": 8},
    ]
    assert (summary.train_posts, summary.test_posts, summary.rows) == (6, 2, 8)


def test_posts_with_an_unknown_tag_are_rejected(vectorized):
    summary, folder = vectorized([*TINY, ("java gem", "ruby"), ("java", "java"), ("more", "python")])
    assert [row["row"] for row in rows_of(folder, "test")] == [10, 11]
    assert (summary.rows, summary.rejected) == (10, 1)
    said = "of 11 rows 10 were kept, 1 rejected (1 tag that no train post has)"
    assert accounting.sentence(asdict(summary)) == said
    assert rows_of(folder, "rejected") == [{"row": 9, "reason": "tag that no train post has", "text": "java gem"}]


def test_a_post_without_a_known_word_has_an_empty_vector(vectorized):
    _, folder = vectorized([("???", "java"), *TINY])
    assert rows_of(folder, "train")[0] == {"indices": [], "values": [], "label": 0, "row": 1}
