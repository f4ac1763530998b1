"""Watching a live model: its accuracy on posts that its run did not have, the series, and when it must be replaced."""

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.execution import watch as watching
from pipeline.execution.runner import run_stage
from pipeline.execution.verify import verify
from pipeline.execution.watch import watch
from pipeline.registry.registry import Registry
from pipeline.registry.series import SERIES, Series
from pipeline.report import models, page
from pipeline.settings import Deployment, Settings
from pipeline.sources import sample
from pipeline.sources.source import Source
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, Once, write_csv

Rows = list[tuple[str, str]]


def posts(rows: int, seed: int) -> Rows:
    return [(row["post"], row["tag"]) for batch in sample.blocks(rows, seed) for row in batch.to_pylist()]


def mistagged(rows: Rows) -> Rows:
    """The same posts, each with the next one's tag."""
    return [(post, tag) for (post, _), (_, tag) in zip(rows, [*rows[1:], rows[0]], strict=True)]


@pytest.fixture
def live(once: Once, tmp_path: Path) -> Run:
    """A run that published a model of 1,000 posts; a copy, which may be changed."""

    def make(folder: Path) -> None:
        run = Run(Store(str(folder / "store")), "first")
        source = write_csv(folder / "first.csv", posts(1000, 5))
        few = {"epochs": 4, "hidden_units": 32, "learning_rate": 0.01}
        run.begin(Settings.of({"source": str(source)} | few), CREATED)
        for stage in STAGES:
            run_stage(stage, run)

    shutil.copytree(once("watched", make), tmp_path / "made")
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


def test_tags_that_the_model_does_not_know_count_as_wrong(live):
    new = posts(100, 9)
    seen = watched(live, [*new, *((f"{post} more", "cobol") for post, _ in new)], warn_tag_drift=0.5)
    assert (seen.unknown_tags, seen.by_tag["cobol"].accuracy) == (100, 0)
    assert seen.live.accuracy < 0.5
    assert seen.drift["tag_drift"] > 0.3
    assert not any("tags" in warning for warning in seen.warnings)


def test_drift_is_warned_of(live):
    seen = watched(live, [(post + " encore une fois" * 30, tag) for post, tag in posts(100, 9)])
    assert any("share of words outside the live model's vocabulary rose" in warning for warning in seen.warnings)


def test_lost_data_of_the_live_run_is_said(live):
    live.store.remove(live.attempt(live.manifest("ingest")))
    live.store.remove(live.attempt(live.manifest("fit_vocabulary")))
    seen = watched(live, posts(100, 9))
    assert seen.drift is None
    assert [warning.partition(" are lost")[0] for warning in seen.warnings] == [
        "the posts of the live version's run",
        "the words of the live version's training posts",
    ]


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
