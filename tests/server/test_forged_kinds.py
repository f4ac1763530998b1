"""A forger without a trusted key, on each kind of document and file of a store: who reads it refuses it by name.

For each kind the table says how it is read by the command that needs it, and what else of the store could be put there.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.weights import FILE as WEIGHTS
from pipeline.errors import CorruptArtifact
from pipeline.registry import model_cache
from pipeline.registry.collected import COLLECTED
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.registry.series import SERIES, Series
from pipeline.registry.serving_dir import path_of
from pipeline.report import page
from pipeline.run.inputs import _fetch_checkpoint
from pipeline.run.rendezvous import Announcement, _await
from pipeline.run.work import Work
from pipeline.stages.plan import STAGES
from pipeline.store import cache, signatures
from pipeline.store.needs import Collector, needing
from pipeline.store.objects import Store
from pipeline.store.run_files import CHECKPOINT
from pipeline.store.runs import Run
from pipeline.tuning.journal import Journal
from pipeline.tuning.tuning import TuningRun
from pipeline.tuning.winner import latest
from pipeline.upkeep.sign import sign_store
from pipeline.upkeep.verify import verify
from tests.conftest import Once
from tests.rich_store import rich_store
from tests.server.test_forger import Forger, new_key

FIRST, LIVE = 20260105060708, 20260105060709


@dataclass(frozen=True)
class Kind:
    """A document's class, its place, another signed document to put there, and what reads it.

    The place is that of a document, or one where there is none yet. `ignored` is what reading gives where the document
    is not refused but passed over, because it is not needed.
    """

    documents: str
    path: str
    other: str
    read: Callable[[Store], Any]
    ignored: Any = CorruptArtifact


def named_by_verify(path: str) -> Callable[[Store], None]:
    def read(store: Store) -> None:
        for fault in verify(store, path.split("/")[1]).faults:
            if path in fault:
                raise CorruptArtifact(fault)

    return read


def hold(store: Store) -> None:
    with TuningRun(store, "t").held():
        pass


def need(store: Store, path: str) -> None:
    with needing(store, path):
        pass


OF_FEEDBACK = {"Seal", "Note", "Tombstone"}
"""Classes of documents that test_forged_feedback.py forges."""

KINDS = [
    Kind("Record", "runs/first/run.json", "runs/same/run.json", lambda s: Work.of("evaluate", Run(s, "first"))),
    Kind(
        "Manifest",
        "runs/first/train/manifest.json",
        "runs/approved/train/manifest.json",
        lambda s: Work.of("evaluate", Run(s, "first")),
    ),
    Kind(
        "Saved",
        "runs/refused/report/page.json",
        "runs/first/report/page.json",
        lambda s: page.latest(Run(s, "refused")),
    ),
    Kind(
        "Refusal",
        "runs/same/refused.json",
        "runs/refused/refused.json",
        lambda s: page.render(Run(s, "same")),
    ),
    Kind(
        "Approval",
        "runs/refused/approved.json",
        "runs/approved/approved.json",
        lambda s: Run(s, "refused").approval(),
    ),
    Kind(
        "Publication",
        "runs/first/published.json",
        "runs/approved/published.json",
        named_by_verify("runs/first/published.json"),
    ),
    Kind("Card", f"{CARDS}/{LIVE}.json", f"{CARDS}/{FIRST}.json", lambda s: Registry(s).published(None)),
    Kind("Event", f"{LOG}/00000006.json", f"{LOG}/00000005.json", lambda s: Registry(s).live()),
    Kind("Event", f"{LOG}/00000003.json", f"{LOG}/00000002.json", lambda s: Registry(s).live(), ignored=LIVE),
    Kind("", f"{LOG}.json", f"{SERIES}.json", lambda s: Registry(s).live(), ignored=LIVE),
    Kind(
        "Collected",
        f"{COLLECTED}/{LIVE}.json",
        f"{COLLECTED}/20260301000000.json",
        lambda s: Registry(s).promote(LIVE, "by a person"),
    ),
    Kind(
        "Observation Agreement",
        f"{SERIES}/00000002.json",
        f"{SERIES}/00000001.json",
        lambda s: Series(s).observations(),
    ),
    Kind(
        "Announcement",
        "runs/under_way/train/cluster/0.json",
        "runs/under_way/run.json",
        lambda s: s.load("runs/under_way/train/cluster/0.json", Announcement),
    ),
    Kind(
        "Cluster",
        "runs/under_way/train/cluster/members.json",
        "runs/under_way/train/cluster/0.json",
        lambda s: _await(Run(s, "under_way"), "runs/under_way/train/cluster", None, 1),
    ),
    Kind("Asked", "tunings/t/tuning.json", "tunings/t/result.json", lambda s: TuningRun(s, "t").asked()),
    Kind("Result", "tunings/t/result.json", "tunings/t/tuning.json", latest),
    Kind("Trial", "tunings/t/done/0001.json", "tunings/t/done/0000.json", lambda s: TuningRun(s, "t").trials()),
    Kind(
        "",
        "tunings/t/journal/00000003.json",
        "tunings/t/journal/00000002.json",
        lambda s: Journal(s, "tunings/t/journal").read_logs(0),
    ),
    Kind("Hold", "tunings/t/held.json", "tunings/t/tuning.json", hold),
    Kind("Intent", "gc/collectors/0.json", "runs/first/run.json", lambda s: need(s, "runs/first")),
    Kind("Intent", "gc/needed/0.json", "runs/first/run.json", lambda s: Collector(s).needs()),
    Kind(
        "",
        "tunings/t/trials/runs/trial1/train/manifest.json",
        "tunings/t/trials/runs/trial0/train/manifest.json",
        lambda s: TuningRun(s, "t").finish(TuningRun(s, "t").asked()),
    ),
]


def unsigned(forger: Forger, path: str, document: dict[str, Any]) -> None:
    forger.put(path, document)


def with_the_old_signature(forger: Forger, path: str, document: dict[str, Any]) -> None:
    signature = forger.signature.get(path, {"key": "?", "value": "?"})
    forger.put(path, document | {"signature": signature})


def signed_by_the_forger(forger: Forger, path: str, document: dict[str, Any]) -> None:
    forger.sign(path, document)


def in_the_name_of_the_trusted_key(forger: Forger, path: str, document: dict[str, Any]) -> None:
    forger.sign(path, document, as_key=next(iter(signatures.keys().trusted)))


WAYS = [unsigned, with_the_old_signature, signed_by_the_forger, in_the_name_of_the_trusted_key]


@pytest.fixture(scope="module")
def signed(once: Once, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path, Path]:
    """A signed store, and its keys. Each test leaves it as it was."""
    folder = tmp_path_factory.mktemp("signed")
    private, public = new_key(folder, "ours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(signatures.SIGNING_KEY, str(private))
        patch.setenv(signatures.TRUSTED_KEYS, str(public))
        store = rich_store(once, folder)
        sign_store(store)
    return store, private, public


@pytest.fixture
def store(signed: tuple[Store, Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The signed store, whose key is trusted; put back as it was."""
    store, private, public = signed
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(public))
    yield store
    signatures._keys.cache_clear()


@pytest.fixture
def forger(store: Store, tmp_path: Path) -> Forger:
    made = Forger(store, tmp_path)
    made.signature = {}
    return made


def put_back(path: Path, stack: ExitStack) -> bytes | None:
    """Restore the file at the end, or remove it if there is none; its content."""
    before = path.read_bytes() if path.exists() else None
    stack.callback(lambda: path.unlink(missing_ok=True) if before is None else path.write_bytes(before))
    return before


def refused_by_name(store: Store, kind: Kind, path: str) -> str | None:
    """What is wrong with how it is read; None if nothing is."""
    try:
        answer = kind.read(store)
    except CorruptArtifact as error:
        name = path.removesuffix(".json")
        return None if name in str(error) and kind.ignored is CorruptArtifact else str(error)
    return None if kind.ignored is not CorruptArtifact and answer == kind.ignored else f"it is read: {answer}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)
def test_what_no_trusted_key_signed_is_refused_by_name(store, forger, kind):
    path, other = forger.root / kind.path, forger.root / kind.other
    with ExitStack() as stack:
        genuine = put_back(path, stack)
        if genuine:
            forger.signature[kind.path] = json.loads(genuine)["signature"]
        wanted = forger.document(kind.path if genuine else kind.other) | {"forged": True}
        wanted |= {"place": kind.path}
        for way in WAYS:
            way(forger, kind.path, wanted)
            assert refused_by_name(store, kind, kind.path) is None, way.__name__
        shutil.copy(other, path)
        assert refused_by_name(store, kind, kind.path) is None, "replayed"
        # Its place is not all that is signed for it.
        forger.put(kind.path, json.loads(other.read_text()) | {"place": kind.path})
        assert refused_by_name(store, kind, kind.path) is None, "replayed as if it had been written there"
        assert any(kind.path in fault for fault in verify(store).faults)


def test_every_class_of_document_is_forged():
    """A new one needs a row, or it is not known who refuses it."""
    sources = Path(signatures.__file__).parents[1].rglob("*.py")
    classes = {name for path in sources for name in re.findall(r"^class (\w+)\(Document\)", path.read_text(), re.M)}
    assert classes - OF_FEEDBACK == {name for kind in KINDS for name in kind.documents.split()}


def test_a_forged_entry_of_the_cache_is_not_taken_up(store, forger):
    names = store.names("cache/train")
    path = f"cache/train/{names[0]}"
    with ExitStack() as stack:
        put_back(forger.root / path, stack)
        look_up = lambda: cache.lookup(store, "train", [names[0].removesuffix(".json")])  # noqa: E731
        assert look_up()
        for way in WAYS:
            way(forger, path, forger.document(path))
            assert look_up() is None, way.__name__
        shutil.copy(forger.root / "cache/train" / names[1], forger.root / path)
        assert look_up() is None


def opened(store: Store) -> None:
    shutil.rmtree(model_cache.cache_folder(), ignore_errors=True)
    model_cache.cache_folder().mkdir(parents=True)
    with model_cache.opened(Registry(store), None):
        pass


FILES = {
    "the published model": (lambda s: f"{Registry(s).published(None).path}/{WEIGHTS}", opened),
    "its learned posts": (lambda s: next(_with_name(s, "runs/approved/export", "learned.parquet")), opened),
    "its served copy": (lambda s: f"{path_of(LIVE)}/{WEIGHTS}", opened),
    "a report": (
        lambda s: next(_with_name(s, "runs/refused/report", "report.html")),
        lambda s: page.latest(Run(s, "refused")),
    ),
    "a stage's result": (
        lambda s: next(_with_name(s, "runs/approved/train", "checkpoint")),
        lambda s: Run(s, "approved").files.fetch(Run(s, "approved").manifest("train"), Path(s.url, "../fetched")),
    ),
}


def _with_name(store: Store, folder: str, name: str) -> Iterator[str]:
    return (f"{folder}/{file}" for file in sorted(store.sizes(folder)) if file.rsplit("/", 1)[-1] == name)


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_no_document_names_so_is_refused_by_name(store, forger, what):
    where, read = FILES[what]
    path = where(store)
    read(store)
    with ExitStack() as stack:
        whole = put_back(forger.root / path, stack)
        other = (forger.root / path_of(FIRST) / WEIGHTS).read_bytes()
        for content in (whole[:-1] + bytes([whole[-1] ^ 1]), b"", other):
            (forger.root / path).write_bytes(content)
            with pytest.raises(CorruptArtifact, match=re.escape(path)):
                read(store)
        (forger.root / path).unlink()
        assert any(path in fault for fault in verify(store).faults)
        if what == "its served copy":
            return  # a publication may be copying it: the server then reads the version's own files
        with pytest.raises(CorruptArtifact, match=re.escape(path)):
            read(store)


def test_a_forged_checkpoint_is_not_gone_on_with(store, forger, tmp_path, caplog):
    """The training begins again, and says which file was not right."""
    run = Run(store, "under_way")
    saved = run.files.saved("train", CHECKPOINT)
    work = Work(STAGES["train"], run, run.existing(), {}, None, None)
    assert _fetch_checkpoint(work, tmp_path / "genuine")
    for number, forged in enumerate([f"{saved.path}/weights", "runs/under_way/train/checkpoint.json"]):
        with ExitStack() as stack:
            whole = put_back(forger.root / forged, stack)
            (forger.root / forged).write_bytes(whole.replace(b"some", b"more").replace(b"under_way", b"underway_"))
            assert not _fetch_checkpoint(work, tmp_path / str(number))
            assert f"train begins again: {forger.root}/{forged}" in caplog.text


def test_every_removed_signature_is_named(store, monkeypatch):
    for keys in ("trusted", "not trusted"):
        if keys == "not trusted":
            monkeypatch.delenv(signatures.TRUSTED_KEYS)
        with ExitStack() as stack:
            path = f"registry/stackoverflow_tagger/signatures/{LIVE}.sig"
            put_back(Path(store.url, path), stack)
            Path(store.url, path).unlink()
            assert any(path in fault for fault in verify(store).faults), keys
