"""Garbage collection at the same time as all that makes something needed, interleaved at every call of the store."""

import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.errors import StageOutOfOrder, TaggerError
from pipeline.registry import registry
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment
from pipeline.store import runs
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.tuning.tuning import TuningRun
from pipeline.upkeep.gc import collect
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, begin_tiny, files_of, small_version

OLD = datetime.now(UTC) - timedelta(days=100)
KEEP_LITTLE = Deployment.of({"keep_versions": 0, "keep_days": 30})


class Killed(BaseException):
    """Raised in the place of a process that dies."""


class Interrupted(Store):
    """A store that calls `meanwhile` before its call number `at`, and counts its calls."""

    def __init__(self, url, at=None, meanwhile=None):
        super().__init__(url, skip_instance_cache=True)
        self.count, self.at, self.meanwhile = 0, at, meanwhile
        for owner, names in (
            (self.fs, ("cat_file", "find", "get_file", "ls", "open", "rm")),
            (self, ("_put", "_put_file", "_put_new")),
        ):
            for name in names:
                setattr(owner, name, partial(self.calling, getattr(owner, name)))

    def calling(self, call, *arguments, **options):
        self.count += 1
        if self.count == self.at:
            self.meanwhile()
        return call(*arguments, **options)


def die_from(url, at):
    """A store of a process that is killed before its call number `at`: no later call is made either."""
    store = Interrupted(url, at)

    def die():
        store.at = store.count + 1
        raise Killed

    store.meanwhile = die
    return store


class LongAgo(datetime):
    """A clock that is 100 days slow."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(days=100)


@pytest.fixture
def base(once):
    """An old store: two versions, runs that were refused, unpublished or not answered, a tuning; not to be changed."""

    def make(folder):
        store = Store(str(folder / "store"))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(runs, "datetime", LongAgo)
            patched.setattr(registry, "datetime", LongAgo)
            for version in (1, 2):
                small_version(store, version, folder, created=OLD + timedelta(hours=version))
            small_version(store, 3, folder, created=OLD, publish=False)
            for name in ("first", "second"):
                run = begin_tiny(folder, name)
                for stage in ("ingest", "fit_vocabulary"):
                    run_stage(stage, run)
                run.refuse("fit_vocabulary", "no reason")
            waiting = small_version(store, 4, folder, created=OLD, publish=False)
            waiting.commit("evaluate", folder / "out4", inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)
        begin_tiny(folder, "young")
        for name in ("old", "latest"):
            store.write(f"tunings/{name}/tuning.json", {"created": OLD.isoformat()})
            finished = OLD + timedelta(days=name == "latest")
            store.write(f"tunings/{name}/result.json", {"finished": finished.isoformat()})

    return once("old_store", make)


@pytest.fixture
def copied(base):
    """Makes a copy in memory of what a need takes of the old store, and returns its URL."""
    files = files_of(base / "store")

    def copy(need):
        store = Store(f"memory://{uuid.uuid4().hex}")
        store.fs.store.clear()  # every listing looks at all of it
        for name, data in files.items():
            if name.startswith((*ALWAYS, *NEEDS[need])):
                store.fs.pipe_file(store.path(name), data)
        return store.url

    yield copy
    Store("memory://").fs.store.clear()


def collect_all(store):
    return [removal.path for removal in collect(store, KEEP_LITTLE)]


def promote(store):
    Registry(store).promote(1, "better")
    return lambda: Registry(store).live() == 1


def roll_back(store):
    Registry(store).rollback("worse")
    return lambda: Registry(store).live() == 1


def publish(store):
    """Publish the model of an old run, as export does when it is run again."""
    run, known = Run(store, "run3"), Registry(store).card(2)
    exported = run.manifest("export")
    if exported is None:
        raise StageOutOfOrder("export was not run")
    model = {"version": 3, "run": "run3", "checkpoint": "3", "files": exported.files}
    card = known.model_copy(update=model | {"path": exported.path})
    Registry(store).publish(card, compared_with=2)
    return lambda: Registry(store).live() == 3


def has_results(run):
    """Whether every file that the run's manifests name is there."""
    faults = [each for m in run.manifests().values() for each in run.store.faults(m.path, m.files) if each]
    return faults == []


def begin(store, name):
    """Begin a run with the settings of the others, and do its first stages."""
    run = Run(store, name)
    run.begin(Run(store, "young").existing().settings, CREATED)
    for stage in ("ingest", "fit_vocabulary"):
        run_stage(stage, run)
    return partial(has_results, run)


def begin_again(store):
    """Begin a run again whose results are those of another run, from the cache."""
    return begin(store, "second")


def adopt(store):
    """Begin a new run, which may take the results of the old ones from the cache."""
    return begin(store, "third")


def do_again(store):
    """Do a stage of a run again without beginning it, as when its task is cleared in Airflow."""
    run = Run(store, "second")
    run_stage("fit_vocabulary", run)
    return partial(has_results, run)


def approve(store):
    run = Run(store, "run4")
    run.approve("a person", "it is good", run.evaluated().attempt)
    return lambda: run.approval() is not None


def hold(store):
    """Hold a tuning until it is asked whether it is still there."""
    held = TuningRun(store, "old").held()
    held.__enter__()
    if not store.exists("tunings/old/tuning.json"):
        held.__exit__(None, None, None)
        raise StageOutOfOrder("the tuning was removed before")

    def is_there():
        there = store.exists("tunings/old/tuning.json")
        held.__exit__(None, None, None)
        return there

    return is_there


def fetch(store):
    """Fetch a version that is not live, as a server does that still follows an older look."""
    with TemporaryDirectory() as folder:
        Registry(store).fetch(1, Path(folder, "model"))
    return lambda: True


BEGUN = ("runs/first/", "runs/second/", "runs/young/", "cache/")
NEEDS = {
    promote: (),
    roll_back: (),
    publish: ("runs/run3/",),
    begin_again: BEGUN,
    do_again: BEGUN,
    adopt: BEGUN,
    approve: ("runs/run4/",),
    hold: ("tunings/",),
    fetch: (),
}
"""What makes something needed, with the parts of the old store that it takes besides the versions."""

ALWAYS = ("registry/", "models/", "runs/run1/", "runs/run2/")


def is_whole(url):
    """Nothing that is needed is missing."""
    store = Store(url)
    assert verify(store).faults == []
    assert Registry(store).disagreement() is None
    with TemporaryDirectory() as folder:
        Registry(store).fetch(None, Path(folder, "model"))


def moments(url, work, step):
    """The numbers of the calls that the work makes when nothing comes between, or some of them."""
    store = Interrupted(url)
    work(store)
    return range(1, store.count + 1, step)


steps = pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.thorough)])


def tried(need, url, at=None, meanwhile=None):
    """Try what makes something needed; returns what says whether it has what it needs, None if it was refused."""
    try:
        return need(Interrupted(url, at, meanwhile))
    except TaggerError:
        return None


@steps
@pytest.mark.parametrize("need", NEEDS)
def test_what_comes_to_be_needed_while_garbage_is_collected_is_kept(copied, need, step):
    done = list[bool]()
    for at in moments(copied(need), collect_all, step):
        url, checks = copied(need), []
        collect_all(Interrupted(url, at, lambda url=url, checks=checks: checks.append(tried(need, url))))
        is_whole(url)
        assert all(check() for check in checks if check), at
        done += [check is not None for check in checks]
    assert done[0], "before garbage collection has begun"


@steps
@pytest.mark.parametrize("need", NEEDS)
def test_garbage_collected_while_something_comes_to_be_needed_leaves_it(copied, need, step):
    for at in moments(copied(need), need, step):
        url = copied(need)
        check = tried(need, url, at, lambda url=url: collect_all(Store(url)))
        is_whole(url)
        assert check is None or check(), at


@steps
@pytest.mark.parametrize("need", [promote, begin_again])
def test_a_garbage_collection_that_was_killed_loses_nothing_that_comes_to_be_needed(copied, need, step):
    for at in moments(copied(need), collect_all, step):
        url = copied(need)
        with suppress(Killed):
            collect_all(die_from(url, at))
        check = tried(need, url)
        collect_all(Store(url))
        is_whole(url)
        assert check is None or check(), at


@steps
@pytest.mark.parametrize("need", [promote, begin_again])
def test_garbage_collection_after_one_that_needed_something_was_killed_loses_nothing(copied, need, step):
    for at in moments(copied(need), need, step):
        url = copied(need)
        with suppress(Killed):
            need(die_from(url, at))
        collect_all(Store(url))
        is_whole(url)
        check = tried(need, url)
        is_whole(url)
        assert check is None or check(), at
