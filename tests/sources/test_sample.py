"""Synthetic posts: they never change, small samples begin large ones, and tags are neither too easy nor too hard."""

import subprocess
import sys
import tracemalloc
import zipfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.sources import sample
from pipeline.sources.source import Source

ROOT = Path(__file__).parents[2]
ARTICLE_TAGS = (
    "javascript java c# php android jquery python html c++ ios css mysql sql asp.net ruby-on-rails objective-c c .net "
    "angularjs iphone"
)


def table(rows: int, seed: int = 0) -> pa.Table:
    return pa.Table.from_batches(sample.blocks(rows, seed))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sample://posts", (4000, 0, 1)),
        ("sample://posts?rows=1", (1, 0, 1)),
        ("sample://posts?seed=7&rows=20", (20, 7, 1)),
        ("sample://posts?rows=20&tags=3", (20, 0, 3)),
    ],
)
def test_parse(source: str, expected: tuple[int, int, int]) -> None:
    assert Source.parse(source).synthetic
    assert sample.parse(source) == expected


@pytest.mark.parametrize(
    "query",
    [
        "posts?rows=0",
        "posts?rows=-1",
        "posts?rows=1.5",
        "posts?rows=",
        "posts?rows=1&rows=2",
        "posts?seed=a",
        "posts?tags=0",
        "posts?tags=6",
        "posts?rows=1_0",
        "posts?rows=%D9%A3",
        "posts?row=5",
        "posts?rows",
        "posts/x",
        "posts#x",
        "questions?rows=5",
        "",
        "[?rows=5",
        "posts?rows=" + "9" * 5000,
    ],
)
def test_parse_refuses(query: str) -> None:
    with pytest.raises(BadInput) as caught:
        sample.parse(f"sample://{query}")
    assert f"sample://{query} does not name synthetic posts: write sample://posts?rows=N" in str(caught.value)


def test_the_posts_of_a_seed_never_change() -> None:
    digest = sha256()
    for row in table(2500, seed=1).to_pylist():
        digest.update(repr(row).encode())
    assert digest.hexdigest() == "88f1a75b62102841cfd9bf11a107340d2a83d52d182b155bd6b5a272d7ca1a06"


def test_a_post_may_have_several_tags_whose_terms_it_has() -> None:
    several = pa.Table.from_batches(sample.blocks(3000, 0, tags=3))
    tags = [tag.split("|") for tag in several.column("tag").to_pylist()]
    assert set(map(len, tags)) == {1, 2, 3}
    assert all(each == sorted(set(each)) for each in tags)
    counts = np.array([text.count("pandas") for text in several["post"].to_pylist()])
    of_python = np.array(["python" in each for each in tags])
    assert counts[of_python].mean() > 5 * counts[~of_python].mean()


def test_seeds_differ() -> None:
    first, second = (set(table(1500, seed).column("post").to_pylist()) for seed in (0, 1))
    assert not first & second
    assert len(first) == 1500


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 3000])
def test_fewer_rows_are_the_first_of_more(rows: int) -> None:
    fewer = table(rows)
    assert fewer.schema == posts.POSTS
    assert fewer.column("row").to_pylist() == list(range(1, rows + 1))
    assert fewer.equals(table(4000).slice(0, rows))


def test_tags_have_about_equal_shares() -> None:
    shares = Counter(table(20_000).column("tag").to_pylist())
    assert set(shares) == set(ARTICLE_TAGS.split())
    assert 900 < min(shares.values()) <= max(shares.values()) < 1100


def test_every_tag_has_terms_and_related_tags() -> None:
    words = sample.words()
    assert set(words["terms"]) == set(ARTICLE_TAGS.split()) == set(words["related"])
    assert all(len(terms) >= 12 for terms in words["terms"].values())
    assert {tag for tags in words["related"].values() for tag in tags} <= set(words["terms"])
    assert Counter(tag for group in words["shared"] for tag in group["tags"]) == Counter(words["terms"].keys())


def test_the_wheel_has_the_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("pipeline/sources/sample.toml") == (ROOT / "pipeline/sources/sample.toml").read_bytes()


def test_posts_look_like_posts() -> None:
    texts = table(4000).column("post").to_pylist()
    assert 600 < np.mean([len(text) for text in texts]) < 1000
    assert 80 < np.mean([len(text.split()) for text in texts]) < 150
    assert max(map(len, texts)) > 1.5 * min(map(len, texts))
    assert all(text[0].isupper() for text in texts)
    assert not any(slot in text for text in texts for slot in sample.SLOTS)
    assert 0.1 < np.mean([text.isascii() for text in texts]) < 0.9
    assert all(text == text.strip() and "  " not in text for text in texts)


def test_no_post_repeats_a_sentence() -> None:
    for text in table(500).column("post").to_pylist():
        assert text.count("I already looked at similar questions") <= 1


def test_memory_does_not_grow_with_rows() -> None:
    next(sample.blocks(1, 0))
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for block in sample.blocks(50_000, 0):
        most = max(most, pa.total_allocated_bytes() - before)
        rows += block.num_rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 50_000
    assert most + peak < 16 * 2**20  # of 40 MB of text


def accuracy(rows: int, seed: int) -> float:
    """The accuracy of naive Bayes on the 1,000 most frequent words: trained on the first 80 %, tested on the rest."""
    columns = table(rows, seed).to_pydict()
    train = int(0.8 * rows)
    words = CountVectorizer(binary=True, max_features=1000).fit(columns["post"][:train])
    vectors = words.transform(columns["post"])
    model = MultinomialNB().fit(vectors[:train], columns["tag"][:train])
    return model.score(vectors[train:], columns["tag"][train:])


@pytest.mark.parametrize(("rows", "seed"), [(2000, 0), (4000, 0), (4000, 1), (20_000, 0)])
def test_tags_can_be_learned_but_not_perfectly(rows: int, seed: int) -> None:
    assert 0.82 < accuracy(rows, seed) < 0.94
