import pytest

from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages import fit_vocabulary
from tests.conftest import TINY, context_of, write_posts


def fit(folder, out, **values):
    out.mkdir()
    settings = Settings.of({"train_fraction": 0.75} | values)
    return fit_vocabulary.run({"ingest": folder}, out, settings, context_of(settings))


def test_words_are_those_of_the_train_posts_most_frequent_first(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=4)
    assert read_lines(tmp_path / "out" / "vocabulary.txt") == ["java", "python", "a"]
    assert read_lines(tmp_path / "out" / "labels.txt") == ["java", "python"]
    assert (summary.rows, summary.words, summary.tags, summary.warnings) == (6, 3, 2, [])
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary.counts.tolist() == [4, 3, 2]
    assert vocabulary.document_counts.tolist() == [3, 3, 2]
    assert vocabulary.documents == 6


def test_words_of_the_test_posts_are_unknown(tiny_posts, tmp_path):
    fit(tiny_posts, tmp_path / "out", vocabulary_size=1000)
    words = read_lines(tmp_path / "out" / "vocabulary.txt")
    assert "thread" in words
    assert "read" not in words
    assert "path" not in words


def test_fewer_words_than_asked_is_a_warning(tiny_posts, tmp_path):
    summary = fit(tiny_posts, tmp_path / "out", vocabulary_size=1000)
    assert summary.warnings == [
        f"the train posts have {summary.words} different words, fewer than the 999 that vocabulary_size=1000 asks for"
    ]


def test_a_tag_that_only_the_test_split_has_is_no_label(tmp_path):
    source = write_posts(tmp_path / "ingest", [*TINY[:7], ("ruby gem", "ruby")])
    summary = fit(source, tmp_path / "out", max_rejected_fraction=0.125)
    assert (summary.rejected, summary.tags) == (1, 2)
    assert read_lines(tmp_path / "out" / "labels.txt") == ["java", "python"]


@pytest.mark.parametrize(
    ("rows", "values", "sentence"),
    [
        ([*TINY[:7], ("ruby gem", "ruby")], {}, "1 of 8 posts have a tag that no train post has"),
        ([("x", "a")] * 6 + [("y", "b")] * 2, {}, "train split has one tag only ('a')"),
        (TINY, {"train_fraction": 0.01}, "train split has no post"),
        (TINY, {"train_fraction": 0.999}, "test split has no post to evaluate on"),
    ],
)
def test_splits_that_nothing_can_be_learned_from_are_refused(tmp_path, rows, values, sentence):
    ingested = write_posts(tmp_path / "ingest", rows, round(values.get("train_fraction", 0.75), 2))
    with pytest.raises(BadInput) as caught:
        fit(ingested, tmp_path / "out", **values)
    assert sentence in str(caught.value)
