"""A file is tagged exactly as its texts are when they are given directly."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from pipeline.scoring import predict
from pipeline.sources.source import Source

TEXTS = ["how do i center a div with css", "Ünïcode İstanbul ΣΑΣ", "!!!", "list comprehension in python" * 50, "c\r d"]


@pytest.fixture
def model(finished_run, tmp_path):
    Registry(finished_run.store).fetch(None, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("older", [False, True], ids=["with its words", "without"])
def test_a_file_is_tagged_as_its_texts_are(model, tmp_path, monkeypatch, older):
    monkeypatch.setattr(posts, "ROWS_PER_BATCH", 2)
    if older:
        shutil.rmtree(model / "assets.extra")
    pq.write_table(pa.table({"body": TEXTS}), tmp_path / "posts.parquet")
    done = predict.tag_file(
        model, Source.parse(str(tmp_path / "posts.parquet")), tmp_path / "tags.parquet", "body", 2**30
    )
    answers = list(predict.tag_texts(model, TEXTS))
    tagged = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    assert (done.posts, done.rejected) == (len(TEXTS), 0)
    assert [(row["row"], row["post"], row["tag"]) for row in tagged] == [
        (at, text, answer["tag"]) for at, (text, answer) in enumerate(zip(TEXTS, answers, strict=True), 1)
    ]
    assert [row["probability"] for row in tagged] == pytest.approx(
        [answer["probability"] for answer in answers], abs=2e-6
    )


def test_a_file_in_another_encoding_is_refused_and_an_odd_one_is_tagged_with_a_warning(model, tmp_path, caplog):
    source, target = tmp_path / "posts", tmp_path / "tags.parquet"
    for content in ('{"post": "how to sort"}\n', "post\nhow to sort\n"):
        source.write_bytes(content.encode("utf-16-le"))
        with pytest.raises(BadInput, match="is UTF-16 text: save it as UTF-8"):
            predict.tag_file(model, Source.parse(str(source)), target, "post", 2**30)
        assert not target.exists()
    source.write_bytes(b"post,id\na,1\rb,2\nc\xff,3\n")
    done = predict.tag_file(model, Source.parse(str(source)), target, "post", 2**30)
    assert (done.posts, done.rejected) == (2, 1)
    assert "end in a lone carriage return" in caplog.text
