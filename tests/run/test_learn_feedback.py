"""A run that learns from what users told the server, besides its source."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipeline.data import posts
from pipeline.run.feedback_source import store_of
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.sources.source import Source
from pipeline.store import feedback
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, begin_tiny

NOON = datetime(2026, 1, 4, 12, tzinfo=UTC)


def row(number: int, tags: str, told: int | None = 0, post: str | None = "how to {}") -> dict[str, object]:
    """What was told of the post that was asked as number so many."""
    return {
        "id": f"{number}.0",
        "at": NOON + timedelta(seconds=number),
        "version": 1,
        "post": post and post.format(number),
        "sha256": "",
        "predicted": "java",
        "probability": 0.5,
        "tags": tags,
    } | ({} if told is None else {"told": NOON + timedelta(minutes=told)})


def ingested(run: Run, folder) -> list[tuple[str, str, int]]:
    run_stage("ingest", run)
    run.files.fetch(run.manifest("ingest"), folder)
    kinds = [posts.of_side(side) for side in posts.SIDES]
    table = pa.concat_tables([pa.Table.from_batches(posts.batches(folder, kind), posts.POSTS) for kind in kinds])
    return sorted(map(tuple, (each.values() for each in table.to_pylist())), key=lambda each: each[2])


@pytest.fixture
def told(tmp_path):
    """A store with feedback of four posts, one of them told twice and one recorded without its text."""
    run = begin_tiny(tmp_path, "before")
    feedback.write(run.store, feedback.TAGGED, "b", [row(2, "java", 5), row(1, "python", 9), row(3, "java", post=None)])
    feedback.write(run.store, feedback.TAGGED, "a", [row(1, "java", 7), row(4, "python", None)])
    return run.store


def test_the_posts_of_the_feedback_come_behind_those_of_the_source(told, tmp_path):
    run = begin_tiny(tmp_path, "learns", learn_feedback=True, split="hash")
    found = ingested(run, tmp_path / "ingested")
    assert len(found) == 11
    assert found[8:] == [("how to 1", "python", 9), ("how to 2", "java", 10), ("how to 4", "python", 11)]
    assert run.manifest("ingest").summary["posts"] == 11
    assert run.manifest("ingest").summary["warnings"] == []


def test_without_the_setting_they_are_left_alone(told, tmp_path):
    assert len(ingested(begin_tiny(tmp_path, "plain"), tmp_path / "ingested")) == 8


def test_a_store_without_feedback_gives_the_source_alone(tmp_path):
    run = begin_tiny(tmp_path, "learns", learn_feedback=True)
    assert len(ingested(run, tmp_path / "ingested")) == 8


def test_new_feedback_is_not_taken_for_a_result_in_the_cache(told, tmp_path):
    for name in ("first", "second"):
        run_stage("ingest", begin_tiny(tmp_path, name, learn_feedback=True, split="hash"))
    assert Run(told, "second").manifest("ingest").run == "first"
    feedback.forget(told, ["4.0"])
    third = begin_tiny(tmp_path, "third", learn_feedback=True, split="hash")
    assert [text for text, _, row in ingested(third, tmp_path / "third") if row > 8] == ["how to 1", "how to 2"]
    assert third.manifest("ingest").run == "third"


def test_a_sequential_split_is_warned_of(told, tmp_path):
    run = begin_tiny(tmp_path, "learns", learn_feedback=True)
    ingested(run, tmp_path / "ingested")
    [warning] = run.manifest("ingest").summary["warnings"]
    assert warning.endswith("split=sequential takes them as test posts: set split=hash")


def test_feedback_has_its_own_columns_and_may_have_several_tags(told, tmp_path):
    feedback.write(told, feedback.TAGGED, "c", [row(5, "python|java", 1)])
    (tmp_path / "other.csv").write_text("body,label\na java post,java\na python post,python\n")
    run = Run(told, "several")
    changed = {"text_column": "body", "tag_column": "label", "multi_tag": True, "learn_feedback": True, "split": "hash"}
    run.begin(Settings.of({"source": str(tmp_path / "other.csv")} | changed), CREATED)
    assert [tag for _, tag, _ in ingested(run, tmp_path / "out")] == [
        "java",
        "python",
        "python",
        "java",
        "python",
        "java|python",
    ]


def test_a_run_whose_source_is_the_feedback_has_each_post_once(told, tmp_path):
    run = Run(told, "of-feedback")
    run.begin(Settings(source=f"{told.url}/{feedback.TAGGED}", split="hash", train_fraction=0.5), CREATED)
    assert [each[:2] for each in ingested(run, tmp_path / "out")] == [
        ("how to 1", "python"),
        ("how to 2", "java"),
        ("how to 4", "python"),
    ]


def test_the_feedback_of_another_store_is_read_as_feedback_too(told, tmp_path):
    run = Run(Store(str(tmp_path / "elsewhere")), "of-feedback")
    run.begin(Settings(source=f"{told.url}/{feedback.TAGGED}", split="hash", train_fraction=0.5), CREATED)
    assert len(ingested(run, tmp_path / "out")) == 3


def test_a_restricted_source_is_feedback_where_it_is_allowed_and_the_own_store_s(told, tmp_path):
    place = f"{told.url}/{feedback.TAGGED}"
    assert store_of(Source.parse(place), told) is told
    assert store_of(Source.parse(place, (told.url,)), told) is told
    assert store_of(Source.parse(place, ("/elsewhere",)), told) is None
    assert store_of(Source.parse(place, (told.url,)), Store(str(tmp_path / "other"))) is None
    assert store_of(Source.parse(f"{told.url}/{feedback.ASKED}"), told) is None
