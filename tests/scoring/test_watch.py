"""Watching a live model: its accuracy on posts that its run did not have, the series, and when it must be replaced."""

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import learned
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.registry.registry import CARDS, Registry
from pipeline.registry.series import SERIES, Series
from pipeline.report import models, page
from pipeline.run.runner import run_stage
from pipeline.scoring import watch as watching
from pipeline.scoring.watch import watch
from pipeline.settings import Deployment, Settings
from pipeline.sources import sample
from pipeline.sources.source import Source
from pipeline.stages.plan import STAGES
from pipeline.store import feedback
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, Once, write_csv

Rows = list[tuple[str, str]]


def posts(rows: int, seed: int) -> Rows:
    return [(row["post"], row["tag"]) for batch in sample.blocks(rows, seed) for row in batch.to_pylist()]


def mistagged(rows: Rows) -> Rows:
    """The same posts, each with the next one's tag."""
    return [(post, tag) for (post, _), (_, tag) in zip(rows, [*rows[1:], rows[0]], strict=True)]


def published(folder: Path) -> None:
    """A run in this folder that published a model of 1,000 posts."""
    run = Run(Store(str(folder / "store")), "first")
    source = write_csv(folder / "first.csv", posts(1000, 5))
    few = {"epochs": 4, "hidden_units": 32, "learning_rate": 0.01}
    run.begin(Settings.of({"source": str(source)} | few), CREATED)
    for stage in STAGES:
        run_stage(stage, run)


@pytest.fixture
def live(once: Once, tmp_path: Path) -> Run:
    """A copy of that run, which may be changed."""
    shutil.copytree(once("watched", published), tmp_path / "made")
    return Run(Store(str(tmp_path / "made/store")), "first")


def watched(run: Run, rows: Rows, **settings: object):
    source = write_csv(Path(run.store.url).parent / "new.csv", rows)
    deployment = Deployment(watch_drop=settings.pop("watch_drop", 0.05))
    return watch(run.store, Source.parse(str(source)), Settings.of(settings), deployment)


def test_the_live_version_is_asked_about_posts_that_its_run_did_not_have(live):
    old, new = posts(1000, 5), posts(300, 9)
    seen = watched(live, old[100:400] + new)
    assert (seen.posts, seen.known, seen.rejected) == (300, 300, 0)
    card = Registry(live.store).published(None)
    assert (seen.live.version, seen.published, seen.limit) == (
        card.version,
        card.accuracy,
        round(card.accuracy - 0.05, 6),
    )
    assert 0.6 < seen.live.low < seen.live.accuracy < seen.live.high < 1
    assert {tag: of.posts for tag, of in seen.by_tag.items()} == Counter(tag for _, tag in new)
    right = sum(round(of.posts * of.accuracy) for of in seen.by_tag.values())
    assert right / 300 == pytest.approx(seen.live.accuracy, abs=1e-6)
    assert not seen.below
    assert seen.before is None
    assert seen.drift.keys() == {"tag_drift", "word_drift", "unknown_words", "length_change"}
    assert Series(live.store).observations() == [seen]


def test_the_interval_is_wilsons(live):
    """Of 4 in 10: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96 (Wilson 1927)."""
    score = watching._score(7, 4, 10)
    assert score.accuracy == 0.4
    assert (score.low, score.high) == pytest.approx((0.168180, 0.687326), abs=1e-5)


def test_a_fall_below_the_limit_asks_for_one_retraining_a_week(live, monkeypatch):
    bad = mistagged(posts(300, 9))
    first, second = watched(live, bad), watched(live, bad)
    assert (first.below, first.called) == (True, True)
    assert (second.below, second.called) == (True, False)
    later = datetime.fromisoformat(first.at) + timedelta(days=7)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return later

    monkeypatch.setattr("pipeline.registry.series.datetime", Later)
    assert watched(live, bad).called


def test_another_live_version_may_ask_at_once(live):
    bad = mistagged(posts(300, 9))
    assert watched(live, bad).called
    again = Run(live.store, "second")
    changed = {"epochs": 5, "max_regression": 1.0}
    again.begin(live.existing().settings.model_copy(update=changed), datetime.now(UTC))
    for stage in STAGES:
        run_stage(stage, again)
    seen = watched(live, bad)
    assert seen.called
    assert seen.live.version == again.existing().first_version
    assert seen.before.version == live.existing().first_version
    assert seen.before.accuracy != seen.live.accuracy


def test_few_posts_do_not_prove_a_fall(live):
    new = posts(300, 9)
    assert not watched(live, mistagged(new[:4]) + new[4:12], watch_drop=0.0).below


def test_nothing_new_leaves_no_observation(live):
    assert watched(live, posts(1000, 5)[:50]) is None
    assert Series(live.store).observations() == []


def test_a_source_without_a_usable_post_is_refused(live):
    with pytest.raises(BadInput, match=r"has no post that can be used \(1 rejected rows\)"):
        watched(live, [("", "java")])


def test_where_no_version_is_live_the_sentence_says_so(tmp_path):
    with pytest.raises(BadInput, match="does not hold a live version: run `tagger run`"):
        watch(Store(str(tmp_path)), Source.parse("sample://posts"), Settings(), Deployment())


def test_posts_of_tags_that_the_model_cannot_know_are_no_decline(live):
    new = posts(100, 9)
    alone, seen = watched(live, new), watched(live, [*new, *((f"{post} more", "cobol") for post, _ in new)])
    assert (seen.posts, seen.unknown_tags, seen.live) == (100, 100, alone.live)
    assert "cobol" not in seen.by_tag
    assert not seen.below
    [warning] = seen.warnings
    assert warning.startswith("100 new posts (50.0%) have only tags that version")
    assert "('cobol' 100)" in warning


@pytest.mark.parametrize("tag", ["cobol", "List<int>", "Python"])
def test_a_source_none_of_whose_tags_the_model_knows_is_refused(live, tag):
    with pytest.raises(BadInput, match="knows no tag of the 50 posts of ") as refused:
        watched(live, [(post, tag) for post, _ in posts(50, 9)])
    assert f"({tag!r} 50)" in str(refused.value)
    assert Series(live.store).observations() == []


def test_new_tags_beside_posts_of_the_run_are_nothing_new(live, caplog):
    caplog.set_level("INFO", "pipeline.scoring.watch")
    assert watched(live, [*posts(1000, 5)[:50], ("move corresponding", "cobol")]) is None
    assert caplog.messages[-1].endswith("and 1 have tags that it does not know")


def test_posts_of_several_tags_are_rejected_for_a_model_of_one(live):
    new = posts(100, 9)
    seen = watched(live, [*new[:50], *((post, f"{tag}|other") for post, tag in new[50:])])
    assert (seen.posts, seen.rejected, seen.unknown_tags) == (50, 50, 0)


def test_posts_without_a_tag_to_keep_are_counted(live):
    seen = watched(live, [*posts(100, 9), ("move corresponding", "cobol")], keep_tags="python, java")
    assert (seen.posts + seen.not_kept, seen.not_kept > 0) == (101, True)
    assert any(f"{seen.not_kept:,} without one of keep_tags" in line for line in seen.lines())


def test_each_text_counts_once(live):
    new = posts(21, 9)
    once, often = watched(live, new), watched(live, new * 20)
    assert (often.posts, often.copies, often.live) == (21, 21 * 19, once.live)
    assert "left out: 399 that copy another" in often.lines()


def test_synthetic_posts_do_not_judge_a_model_of_real_ones(live):
    with pytest.raises(BadInput, match=r"learned real posts, and sample://posts\?rows=50&seed=9 names synthetic ones"):
        watch(live.store, Source.parse("sample://posts?rows=50&seed=9"), Settings(), Deployment())
    assert Series(live.store).entries() == []


def test_real_posts_do_not_show_that_a_model_of_synthetic_ones_has_declined(live):
    card = Registry(live.store).published(None)
    live.store.write(f"{CARDS}/{card.version}.json", card.to_dict() | {"synthetic": True})
    seen = watched(live, mistagged(posts(300, 9)))
    assert seen.live.high < seen.limit
    assert (seen.below, seen.called, seen.drift) == (False, False, None)
    assert any("learned synthetic posts, and these are real" in warning for warning in seen.warnings)


def test_synthetic_posts_judge_a_model_of_synthetic_ones(live):
    card = Registry(live.store).published(None)
    live.store.write(f"{CARDS}/{card.version}.json", card.to_dict() | {"synthetic": True})
    seen = watch(live.store, Source.parse("sample://posts?rows=50&seed=9"), Settings(), Deployment())
    assert (seen.posts, seen.warnings) == (50, [])


WRONG_TEXTS = {
    "titles": lambda post: post[:60],
    "numbers": lambda post: str(len(post)),
    "another language": lambda post: " ".join(f"mot{len(word)}{word[:2]}" for word in post.split()),
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_a_wrong_text_column_starts_no_retraining(live, name):
    new = mistagged(posts(300, 9))
    seen = watched(live, [(f"{WRONG_TEXTS[name](post)} {at}", tag) for at, (post, tag) in enumerate(new)])
    assert seen.live.high < seen.limit
    assert (seen.below, seen.called, seen.decline) == (False, False, None)
    assert any("do not show whether version" in warning for warning in seen.warnings)
    assert seen.why_not_called.startswith("the posts are too different")


@pytest.mark.parametrize("count", [1, 10, 30, 100])
def test_few_posts_of_the_same_kind_have_not_drifted(live, count):
    assert watched(live, posts(count, 9)).warnings == []


def test_what_is_said_of_a_decline(live):
    seen = watched(live, mistagged(posts(300, 9)))
    assert seen.decline == (
        f"the accuracy of version {seen.live.version} fell from {seen.published:.4f} to {seen.live.accuracy:.4f}, "
        f"below {seen.limit:.4f} (watch_drop): train a new one, with `tagger run` or in Airflow"
    )
    assert seen.lines()[0].endswith(
        f"live: accuracy {seen.live.accuracy:.4f} on 300 new posts "
        f"(95 % interval {seen.live.low:.4f} to {seen.live.high:.4f})"
    )


def told(at: int, post: str | None, tag: str, name: str) -> dict[str, object]:
    """What was told at this minute of the post with that id."""
    noon = datetime(2026, 1, 4, 12, tzinfo=UTC)
    asked = {"id": name, "at": noon, "version": 1, "post": post, "sha256": "", "predicted": tag, "probability": 0.5}
    return asked | {"tags": tag, "told": noon + timedelta(minutes=at)}


SPELLINGS = ["{}", "{}/", "{}/*.parquet", "{}/**/*.parquet", "{}/../tagged", "file://{}/"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_post_of_the_feedback_counts_once_with_what_was_told_last(live, spelling):
    new = posts(21, 9)
    right = [told(60, post, tag, f"{at}.0") for at, (post, tag) in enumerate(new)]
    wrong = [row | {"tags": "css", "told": row["told"] - timedelta(minutes=n)} for n in range(1, 21) for row in right]
    wrong += [row | {"id": f"!{row['id']}", "told": row["told"] - timedelta(minutes=30)} for row in wrong[:5]]
    feedback.write(live.store, feedback.TAGGED, "a", right)
    feedback.write(live.store, feedback.TAGGED, "b", [*wrong, told(9, None, "css", "untold.0")])
    source = Source.parse(spelling.format(f"{live.store.url}/{feedback.TAGGED}"))
    seen = watch(live.store, source, Settings(text_column="body"), Deployment())
    assert (seen.posts, seen.copies, seen.rejected) == (21, 425, 1)
    assert {tag: of.posts for tag, of in seen.by_tag.items()} == Counter(tag for _, tag in new)


@pytest.mark.parametrize("damage", [b"PAR1 cut", b"", "other columns"])
def test_feedback_that_was_damaged_is_one_sentence(live, tmp_path, damage):
    folder = Path(live.store.url, feedback.TAGGED)
    folder.mkdir(parents=True)
    if isinstance(damage, bytes):
        (folder / "a.parquet").write_bytes(damage)
    else:
        pq.write_table(pa.table({"post": ["x"], "tags": ["java"]}), folder / "a.parquet")
    with pytest.raises(CorruptArtifact, match=r"a\.parquet (cannot be read|was not written)"):
        watch(live.store, Source.parse(str(folder)), Settings(), Deployment())


def test_drift_is_warned_of(live):
    seen = watched(live, [(post + " encore une fois" * 30, tag) for post, tag in posts(100, 9)])
    assert any("share of words outside the live model's vocabulary rose" in warning for warning in seen.warnings)


def lose_posts(live):
    live.store.remove(live.manifest("ingest").path)
    live.store.remove(live.manifest("fit_vocabulary").path)


def test_where_the_posts_of_the_live_run_are_lost_those_it_learned_are_left_out(live):
    """Of the 1,000 posts the version learned the first 800, and was tested on the others."""
    lose_posts(live)
    old, new = posts(1000, 5), posts(100, 9)
    seen = watched(live, old[700:900] + new)
    assert (seen.posts, seen.known, seen.drift) == (200, 100, None)
    assert [warning.partition(":")[0] for warning in seen.warnings[:1]] == [
        "the posts of the live version's run are lost",
    ]
    assert seen.warnings[1].startswith("the words of the live version's training posts are lost")
    assert watched(live, old[:50]) is None


def test_where_nothing_says_what_the_version_learned_a_warning_does(live, monkeypatch):
    """A version of an earlier release has no list of its posts."""
    lose_posts(live)
    monkeypatch.setattr(learned, "FILE", "absent.parquet")
    seen = watched(live, posts(1000, 5)[:100])
    assert (seen.posts, seen.known) == (100, 0)
    assert seen.warnings[0].endswith("are lost, so posts that it learned from may be among these")


def test_models_and_the_report_show_the_series(live):
    run = live
    before = page.latest(run)
    assert "On newly tagged posts" not in before
    seen = watched(run, mistagged(posts(300, 9)))
    for html in (models.render(Registry(run.store)), page.latest(run)):
        assert "On newly tagged posts" in html
        assert f"{seen.live.accuracy:.4f}" in html
        assert "started a retraining" in html


def test_a_changed_observation_is_found(live):
    watched(live, posts(100, 9))
    assert verify(live.store).faults == []
    [entry] = Path(live.store.url, SERIES).glob("*.json")
    entry.write_text(entry.read_text().replace('"below": false', '"below": true'))
    assert any("series/00000001.json" in fault for fault in verify(live.store).faults)
