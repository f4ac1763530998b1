"""A forger who may write to the store, but has no trusted key, and recorded posts: each reader names what is forged."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import CorruptArtifact
from pipeline.run.runner import run_stage
from pipeline.store import feedback, feedback_files, forgotten, signatures
from pipeline.store.feedback_files import File
from pipeline.store.forgotten import Forgotten
from pipeline.store.objects import Store
from pipeline.upkeep.sign import sign_store
from pipeline.upkeep.verify import verify
from tests.conftest import begin_tiny
from tests.server.test_forger import new_key
from tests.server.test_forget import faults, filled, forget_two, row, texts, told

ASKED, TAGGED = "feedback/asked/a.parquet", "feedback/tagged/b.parquet"
NOTES = ("feedback/written/asked/a.json", "feedback/written/tagged/b.json")


def ingest(store: Store) -> None:
    feedback.fingerprint(store)


def watch(store: Store) -> None:
    feedback.fetch(store, Path(store.url, "fetched"), by_text=True)


def tell(store: Store) -> None:
    list(feedback.asked(store, "a"))


def flush(store: Store) -> None:
    feedback.write(store, feedback.ASKED, "new", [row("new")])


def forget(store: Store) -> None:
    feedback.forget(store, ["one"])


def gc(store: Store) -> None:
    feedback.forget_older(store, 90)


def check(store: Store) -> None:
    if found := faults(store):
        raise CorruptArtifact(found[0])


READERS = {read.__name__: read for read in (ingest, watch, tell, flush, forget, gc, check)}
OF_TAGGED = {"ingest", "watch", "forget", "gc", "check"}
OF_ASKED = {"tell", "forget", "gc", "check"}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the key of this name the one to sign with; that of `us` is the only one that is trusted."""
    made = {name: new_key(tmp_path, name) for name in ("us", "forger")}
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(made["us"][1]))

    def choose(name: str) -> None:
        monkeypatch.setenv(signatures.SIGNING_KEY, str(made[name][0]))

    choose("us")
    return choose


@pytest.fixture
def store(tmp_path: Path, keys: object) -> Store:
    """A store with files, notes and a tombstone, all signed."""
    store = filled(str(tmp_path / "store"))
    forget_two(store)
    return store


def refusing(store: Store, named: str) -> set[str]:
    """The readers that refuse to read a copy of the store, and name this file of it."""
    refused = dict[str, str]()
    for name, read in READERS.items():
        copy = Store(f"{store.url}-copy")
        shutil.copytree(store.url, copy.url)
        try:
            read(copy)
        except CorruptArtifact as error:
            refused[name] = str(error)
        finally:
            shutil.rmtree(copy.url)
    assert [name for name, sentence in refused.items() if f"{copy.url}/{named}" not in sentence] == []
    return set(refused)


def tombstone(store: Store) -> str:
    [name] = store.names(forgotten.FOLDER)
    return f"{forgotten.FOLDER}/{name}"


def test_what_is_right_is_refused_by_nobody(store):
    assert refusing(store, "") == set()
    assert verify(store).faults == []


@pytest.mark.parametrize(("path", "readers"), [(ASKED, OF_ASKED), (TAGGED, OF_TAGGED)])
def test_a_file_that_is_gone_is_named(store, path, readers):
    Path(store.url, path).unlink()
    assert refusing(store, path) == readers
    assert [fault.partition(" is gone")[0] for fault in verify(store).faults] == [f"{store.url}/{path}"]


@pytest.mark.parametrize(("path", "readers"), [(NOTES[0], OF_ASKED), (NOTES[1], OF_TAGGED)])
def test_a_note_that_is_gone_is_named_and_written_again_by_gc(store, path, readers):
    Path(store.url, path).unlink()
    assert refusing(store, path) == readers - {"forget", "gc"}
    feedback.forget_older(store, 90)
    assert verify(store).faults == []


@pytest.mark.parametrize("path", [ASKED, TAGGED, *NOTES, "tombstone"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_change_of_any_byte_is_found(store, path, trusted, monkeypatch):
    if not trusted:
        monkeypatch.delenv(signatures.TRUSTED_KEYS)
    path = tombstone(store) if path == "tombstone" else path
    file = Path(store.url, path)
    data = file.read_bytes()
    for at in range(0, len(data), 3):
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        if path.startswith(forgotten.FOLDER):
            with pytest.raises(CorruptArtifact, match=file.name):
                Forgotten(store).look_and_check()
        else:
            with pytest.raises(CorruptArtifact, match=f"{file.stem}\\.(parquet|json)"):
                File.read(store, TAGGED if "tagged" in path else ASKED)
    assert at > 200


@pytest.mark.parametrize(
    ("path", "readers"),
    [
        (ASKED, OF_ASKED),
        (TAGGED, OF_TAGGED),
        (NOTES[0], OF_ASKED),
        (NOTES[1], OF_TAGGED),
        ("tombstone", set(READERS)),
    ],
)
def test_what_was_changed_is_refused_by_each_of_its_readers(store, path, readers):
    path = tombstone(store) if path == "tombstone" else path
    file = Path(store.url, path)
    data = bytearray(file.read_bytes())
    data[30] ^= 1
    file.write_bytes(data)
    assert refusing(store, path) == readers
    assert [fault.startswith(str(file)) for fault in verify(store).faults] == [True]


def as_an_earlier_release(store: Store, keys: Callable, path: str) -> None:
    table = pq.read_table(Path(store.url, TAGGED))
    Path(store.url, path).unlink(missing_ok=True)
    Path(store.url, path.replace("/tagged/", "/written/tagged/").replace(".parquet", ".json")).unlink(missing_ok=True)
    pq.write_table(table, Path(store.url, path))


def with_no_key(store: Store, keys: Callable, path: str) -> None:
    with pytest.MonkeyPatch.context() as without:
        without.delenv(signatures.SIGNING_KEY)
        without.delenv(signatures.TRUSTED_KEYS)
        feedback.write(Store(store.url), feedback.TAGGED, Path(path).stem, [told("forged")])


def with_another_key(store: Store, keys: Callable, path: str) -> None:
    keys("forger")
    with pytest.MonkeyPatch.context() as without:
        without.delenv(signatures.TRUSTED_KEYS)
        feedback.write(store, feedback.TAGGED, Path(path).stem, [told("forged")])
    keys("us")


def with_another_key_and_a_true_note(store: Store, keys: Callable, path: str) -> None:
    with_another_key(store, keys, path)
    feedback_files.write_note(store, path, complete=True)


def from_another_place(store: Store, keys: Callable, path: str) -> None:
    """A file that is ours, where the forger likes to have it, with a note that is ours."""
    feedback.write(store, feedback.ASKED, "forged", [row("forged")])
    shutil.copy(Path(store.url, feedback.ASKED, "forged.parquet"), Path(store.url, path))
    feedback_files.write_note(store, path, complete=True)


@pytest.mark.parametrize(
    "forge",
    [
        as_an_earlier_release,
        with_no_key,
        with_another_key,
        with_another_key_and_a_true_note,
        from_another_place,
    ],
)
@pytest.mark.parametrize("path", [TAGGED, "feedback/tagged/new.parquet"])
def test_a_forged_file_is_learned_by_nobody(store, keys, forge, path):
    forge(store, keys, path)
    named = f"feedback/written/tagged/{Path(path).stem}.json" if forge in (with_no_key, with_another_key) else path
    assert refusing(store, named) == OF_TAGGED
    assert [named in fault for fault in verify(store).faults] == [True]


@pytest.mark.parametrize("key", ["", "forger"])
def test_a_forged_tombstone_is_refused_and_nothing_is_forgotten(store, keys, key):
    before = texts(store)
    [real] = store.names(forgotten.FOLDER)
    with pytest.MonkeyPatch.context() as without:
        keys("forger")
        without.delenv(signatures.TRUSTED_KEYS)
        if not key:
            without.delenv(signatures.SIGNING_KEY)
        forgotten.note(Store(store.url), (), datetime.now(UTC))
    keys("us")
    [made] = {*store.names(forgotten.FOLDER)} - {real}
    assert refusing(store, f"{forgotten.FOLDER}/{made}") == set(READERS)
    assert texts(store) == before


def test_a_run_does_not_learn_a_forged_file_and_learns_what_an_operator_signed(store, keys, tmp_path):
    as_an_earlier_release(store, keys, "feedback/tagged/new.parquet")
    run = begin_tiny(tmp_path, "learns", learn_feedback=True, split="hash")
    with pytest.raises(
        CorruptArtifact, match=r"tagged/new\.parquet is not trusted, because it is not signed: .* `tagger sign`"
    ):
        run_stage("ingest", run)
    assert sign_store(run.store)[0] > 0
    assert verify(run.store).faults == []
    assert run_stage("ingest", run)["posts"] == 8 + 3


def test_a_store_that_was_recorded_before_the_first_key_is_signed_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.delenv(signatures.SIGNING_KEY, raising=False)
    monkeypatch.delenv(signatures.TRUSTED_KEYS, raising=False)
    store = filled(str(tmp_path / "store"))
    private, public = new_key(tmp_path, "ours")
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    damaged = Path(store.url, TAGGED)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:40] + b"?" + whole[41:])
    with pytest.raises(CorruptArtifact, match=r"b\.parquet is not the file that was written there"):
        sign_store(store)
    damaged.write_bytes(whole)
    sign_store(store)
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(public))
    assert refusing(store, "") == set()
