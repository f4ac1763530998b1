"""How many calls of the store are made: constant for a publication or a page, linear for garbage collection."""

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.files import entries
from pipeline.registry.card import Card
from pipeline.registry.events import PROMOTE, PUBLISH, Event
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.registry.serving_dir import path_of
from pipeline.report import models
from pipeline.report.runs import newest_first, newest_runs
from pipeline.settings import Deployment, Settings
from pipeline.store import run_index
from pipeline.store.documents import FORMAT
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store
from pipeline.store.runs import Record, Run
from pipeline.upkeep.gc import collect
from tests.conftest import small_version

START = datetime(2026, 1, 1, tzinfo=UTC)


class Counting(Store):
    """A store that counts the calls of its filesystem."""

    def __init__(self, url):
        super().__init__(url, skip_instance_cache=True)
        self.calls = Counter()
        for name in ("cat_file", "find", "get_file", "ls", "open", "pipe_file", "put_file", "rm"):
            setattr(self.fs, name, self.counted(name, getattr(self.fs, name)))

    def counted(self, name, call):
        def counting(*arguments, **options):
            self.calls[name] += 1
            return call(*arguments, **options)

        return counting


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("graph")
    (tmp_path / "model" / "variables").write_text("weights")
    return tmp_path / "model"


def card_of(version, model):
    at = (START + timedelta(days=version)).isoformat()
    path = f"runs/{version}/export/one"
    return Card(
        version=version,
        run=str(version),
        data=at,
        path=path,
        checkpoint=f"c{version}",
        accuracy=0.9,
        macro_f1=0.8,
        tags=2,
        synthetic=False,
        published=at,
        files=entries(model),
    )


def grown(model, versions, *, by_hand=()):
    """A store with this many published versions, each in the serving directory, as older releases left it.

    After each version in `by_hand`, a person promoted version 1.
    """
    url = f"memory://{uuid.uuid4().hex}"
    store, number = Store(url), 0
    for version in range(1, versions + 1):
        card = card_of(version, model)
        store.upload(model, card.path)
        store.upload(model, path_of(version))
        store.write(f"{CARDS}/{version}.json", card.to_dict())
        for action, live in ((PUBLISH, version), (PROMOTE, 1))[: 2 if version in by_hand else 1]:
            number += 1
            event = Event(
                number=number, at=card.published, action=action, version=live, live=live, by="by", reason="why"
            )
            document = {name: value for name, value in event.to_dict().items() if name != "model"}
            store.write(f"{LOG}/{number:08d}.json", document)
    return url


def publish(url, version, model):
    """Publish the version as a run does, and return the calls that it took."""
    store = Counting(url)
    card = card_of(version, model)
    Store(url).upload(model, card.path)
    registry = Registry(store)
    champion = registry.live_before(version)
    assert Registry(store).taken_down(card) is None
    Registry(store).publish(card, compared_with=champion)
    assert Registry(store).live() == version
    return store.calls


def test_publication_makes_as_many_calls_after_a_thousand_versions_as_after_ten(model):
    calls = {}
    for versions in (10, 1000):
        url = grown(model, versions)
        publish(url, versions + 1, model)  # the first one finds the log without a copy
        calls[versions] = publish(url, versions + 2, model)
        assert len(Registry(Store(url)).events()) == versions + 2
    assert calls[10] == calls[1000]
    assert calls[10].total() < 60


def test_versions_taken_down_by_hand_add_no_calls(model):
    """The log identifies their models, except in entries of older releases."""
    calls = {}
    for rounds in (1, 20):
        url = grown(model, 2)
        for version in range(3, 3 + rounds):
            publish(url, version, model)
            Registry(Store(url)).rollback("worse")
        calls[rounds] = publish(url, 3 + rounds, model)
    assert calls[1] == calls[20]


def test_a_log_without_a_copy_is_read_entry_by_entry(model):
    url = grown(model, 12, by_hand={4, 9})
    before = Registry(Store(url))
    events, looked = before.events(), [before.live_before(version) for version in range(1, 14)]
    assert [event.number for event in events] == list(range(1, 15))
    assert [event.action for event in events if event.action == PROMOTE] == [PROMOTE] * 2
    assert before.taken_down(before.card(9))[1].number == 11
    publish(url, 13, model)
    after = Registry(Store(url))
    assert after.events()[:-1] == events
    assert [after.live_before(version) for version in range(1, 14)] == looked
    assert after.taken_down(after.card(9))[1].number == 11
    assert after.taken_down(after.card(8)) is None


def test_garbage_collection_makes_calls_in_proportion_to_the_runs(tmp_path):
    later, settings = datetime.now(UTC) + timedelta(days=9), Deployment.of({"keep_versions": 0, "keep_days": 0})
    calls = {}
    for runs in (5, 10, 20):
        store = Counting(str(tmp_path / f"store-{runs}"))
        for version in range(1, runs + 1):
            small_version(store, version, tmp_path, created=START + timedelta(days=version))
        store.calls.clear()
        assert len(list(collect(store, settings, later))) == 2 * (runs - 1) + 1
        calls[runs] = store.calls.total()
    assert calls[20] - calls[10] == 2 * (calls[10] - calls[5])
    assert calls[20] < 20 * 50


def finished(store, count, folder):
    """Runs that published a version each and ended long ago, as one commit of a log and many documents."""
    entries = {}
    for version in range(1, count + 1):
        at = START + timedelta(hours=version)
        run = Run(store, str(version))
        record = Record(
            run=run.name, created=at, started=at, airflow_run_id=None, settings=Settings(), deployment=Deployment()
        )
        store.write(f"{run.path}/run.json", record.to_dict())
        run_index.add(store, run.name, at)
        card = card_of(version, folder).model_copy(
            update={"version": record.first_version, "path": f"{run.path}/export/{at:%Y%m%dT%H%M%S}-00000000"}
        )
        store.upload(folder, card.path)
        exported = Manifest(
            stage="export",
            run=run.name,
            attempt=card.path.rpartition("/")[-1],
            files=card.files,
            inputs={},
            summary={"rows": 1},
            seconds=1.0,
            peak_mib=None,
            finished=at.isoformat(),
        )
        run.adopt(exported)
        store.write(f"{CARDS}/{card.version}.json", card.to_dict())
        event = Event(
            number=version,
            at=at.isoformat(),
            action=PUBLISH,
            version=card.version,
            live=card.version,
            by="by",
            reason="",
        )
        entries[f"{version:08d}.json"] = event.to_dict()
        store.write(f"{LOG}/{version:08d}.json", event.to_dict())
    store.write(f"{LOG}.json", {"format": FORMAT, "entries": entries})
    Registry(store).reconcile()


def test_pages_make_as_many_calls_whatever_the_history(model, monkeypatch):
    monkeypatch.setattr(models, "CHANGES", 3)
    calls = {}
    for count in (10, 100):
        store = Counting(f"memory://{uuid.uuid4().hex}")
        finished(store, count, model)
        store.calls.clear()
        listed = newest_first(store, damaged=pytest.fail, limit=3)
        assert [each["run"] for each in listed] == [str(count), str(count - 1), str(count - 2)]
        page = models.render(Registry(store), older_link=str)
        assert f'<a href="{count - 2}">' in page
        assert page.count("publish") >= 3
        calls[count] = store.calls
    assert calls[10] == calls[100]


def test_the_pages_of_the_models_together_have_every_version_once(model, monkeypatch):
    monkeypatch.setattr(models, "CHANGES", 3)
    store = Store(f"memory://{uuid.uuid4().hex}")
    finished(store, 7, model)
    pages, before = [], [None]
    while before:
        pages.append(models.render(Registry(store), None, lambda number: before.append(number) or "x", before.pop()))
    assert len(pages) == 3
    for card in Registry(store).cards():
        assert sum(f"<tr><td>{card.version}</td>" in page for page in pages) == 1


def test_a_run_that_is_not_in_the_index_is_listed_in_its_place_and_indexed_by_garbage_collection(model):
    store = Store(f"memory://{uuid.uuid4().hex}")
    finished(store, 4, model)
    store.remove(run_index.entries(store)[run_index.digest_of("3")])
    assert [run.name for run in newest_runs(store)] == ["4", "3", "2", "1"]
    list(collect(store, Deployment.of({"keep_versions": 2, "keep_days": 1})))
    assert sorted(run_index.entries(store)) == sorted(map(run_index.digest_of, "234"))
    assert [run.name for run in newest_runs(store)] == ["4", "3", "2"]


def test_garbage_collection_that_removes_makes_calls_in_proportion_to_the_runs(model):
    calls = {}
    for count in (20, 40, 80):
        store = Counting(f"memory://{uuid.uuid4().hex}")
        finished(store, count, model)
        store.calls.clear()
        assert len(list(collect(store, Deployment.of({"keep_versions": 0, "keep_days": 0})))) == count - 1
        calls[count] = store.calls.total()
    assert calls[80] - calls[40] == 2 * (calls[40] - calls[20])
