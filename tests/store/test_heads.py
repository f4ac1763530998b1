"""How far a signed log had come is remembered, never goes back, and is never taken for nothing known."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise

import pytest

from pipeline.errors import BadInput, CorruptArtifact, Forbidden
from pipeline.files import user_cache
from pipeline.store import heads, signatures
from pipeline.store.append_log import AppendLog
from pipeline.store.objects import Store
from tests.keys import new_key

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(400)]
PLACE = "a log"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def memory():
    [file] = (user_cache() / "logs").glob("*.json")
    return file


def test_the_memory_goes_on_and_refuses_a_shorter_or_another_log():
    heads.refuse_cut_off(PLACE, DIGESTS[:5])
    heads.refuse_cut_off(PLACE, DIGESTS[:8])
    assert heads.known(PLACE) == (8, DIGESTS[7])
    for other in (DIGESTS[:7], [], [*DIGESTS[:7], "another last one"], [*DIGESTS[:7], "another last one", "and more"]):
        with pytest.raises(CorruptArtifact, match="which had 8 entries: some were removed or replaced"):
            heads.refuse_cut_off(PLACE, other)
    assert heads.known(PLACE) == (8, DIGESTS[7])


def test_a_process_that_listed_fewer_entries_and_writes_later_takes_nothing_back():
    heads.refuse_cut_off(PLACE, DIGESTS[:5])
    before = heads.known(PLACE)
    heads.refuse_cut_off(PLACE, DIGESTS[:8])
    heads.refuse_cut_off(PLACE, DIGESTS[:6], before)
    assert heads.known(PLACE) == (8, DIGESTS[7])


def test_the_later_of_two_writers_looks_again():
    """The other one writes when this one has decided to."""
    with pytest.MonkeyPatch.context() as patch:
        remember = heads._remember

        def late(place, digests):
            patch.undo()
            remember(place, DIGESTS[:8])
            remember(place, digests)

        patch.setattr(heads, "_remember", late)
        heads.refuse_cut_off(PLACE, DIGESTS[:6])
    assert heads.known(PLACE) == (8, DIGESTS[7])


def test_of_two_that_read_different_logs_at_once_the_later_is_refused():
    before = heads.known(PLACE)
    heads.refuse_cut_off(PLACE, ["another first one"])
    with pytest.raises(CorruptArtifact, match="which had 1 entries"):
        heads.refuse_cut_off(PLACE, DIGESTS[:2], before)


READER = """
import hashlib, sys
from pipeline.store import heads
digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(400)]
for count in range(int(sys.argv[1]), 400, 2):
    before = heads.known("a log")
    heads.refuse_cut_off("a log", digests[: max(before.entries, count)], before)
"""


def test_two_processes_that_read_a_growing_log_at_once_never_take_the_memory_back():
    processes = [subprocess.Popen([sys.executable, "-c", READER, start]) for start in ("1", "2")]
    seen = [heads.known(PLACE).entries]
    while any(process.poll() is None for process in processes):
        seen.append(heads.known(PLACE).entries)
    assert [process.returncode for process in processes] == [0, 0]
    assert all(earlier <= later for earlier, later in pairwise(seen))
    assert heads.known(PLACE) == (399, DIGESTS[398])
    assert [path.suffix for path in sorted((user_cache() / "logs").iterdir())] == [".json", ".lock"]


UNREADABLE = {
    "torn": lambda text: text[:20],
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "a number": lambda _: "7",
    "without the count": lambda text: json.dumps({"last": json.loads(text)["last"]}),
    "without the last": lambda text: json.dumps({"entries": json.loads(text)["entries"]}),
    "a count in words": lambda text: text.replace("9", '"nine"', 1),
    "not text": lambda _: "\udcff",
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_memory_that_cannot_be_read_is_an_error_that_says_what_to_do(damage):
    heads.refuse_cut_off(PLACE, DIGESTS[:9])
    memory().write_bytes(UNREADABLE[damage](memory().read_text()).encode(errors="surrogateescape"))
    with pytest.raises(CorruptArtifact, match=r"is damaged, so it is not known whether a log was cut off.*then remove"):
        heads.refuse_cut_off(PLACE, DIGESTS[:2])


def test_a_memory_that_may_not_be_read_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    heads.refuse_cut_off(PLACE, DIGESTS[:9])
    file = memory()
    file.unlink()
    file.mkdir()
    with pytest.raises(Forbidden, match=r"cannot be read \(Is a directory\).*set XDG_CACHE_HOME to another folder"):
        heads.refuse_cut_off(PLACE, DIGESTS[:2])
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Forbidden, match=r"cannot be read \(Not a directory\)"):
        heads.refuse_cut_off(PLACE, DIGESTS[:2])


def test_a_machine_that_cannot_remember_says_so(monkeypatch, caplog):
    monkeypatch.setattr(heads, "_write", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    heads.refuse_cut_off(PLACE, DIGESTS[:2])
    assert "would not notice if it were cut off" in caplog.text
    assert "Read-only file system" in caplog.text


@pytest.fixture
def signed(tmp_path, monkeypatch):
    """A signed log of five entries, which this machine has not read."""
    private, public = new_key(tmp_path, "ours")
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(public))
    store = Store(str(tmp_path / "store"))
    log = AppendLog(store, "log")
    for number in range(1, 6):
        assert log.append(number, {"number": number, "what": f"change {number}"})
    yield store
    signatures._keys.cache_clear()


def test_an_entry_that_the_key_signed_for_its_place_in_another_log_is_refused(signed):
    """Such as one of a copy of the store that was written on: each signature is right, and only the chain is not."""
    for number in (1, 3, 4):
        path = f"log/{number:08d}.json"
        genuine = signed.read(path)
        signed.write(path, genuine | {"what": "change of the copy"})
        signed.remove("log.json")
        broken = f"{number + 1:08d}.json follows another entry than the one before it: restore"
        with pytest.raises(CorruptArtifact, match=broken):
            AppendLog(signed, "log").entries()
        assert "follows another entry" in next(AppendLog(signed, "log").faults())
        signed.write(path, genuine)
    assert len(AppendLog(signed, "log").entries()) == 5


def test_the_last_entry_replaced_by_another_that_the_key_signed_is_noticed_where_the_log_was_read(signed):
    """No later entry names it, so only the memory tells."""
    assert len(AppendLog(signed, "log").entries()) == 5
    last = signed.read("log/00000005.json")
    signed.write("log/00000005.json", last | {"what": "change of the copy"})
    with pytest.raises(CorruptArtifact, match="which had 5 entries: some were removed or replaced"):
        AppendLog(signed, "log").entries()


def test_an_entry_that_another_process_adds_and_remembers_meanwhile_is_no_alarm(signed):
    reader = AppendLog(signed, "log")
    with pytest.MonkeyPatch.context() as patch:
        names = signed.names

        def late(path):
            patch.undo()
            listed = names(path)
            other = AppendLog(Store(signed.url), "log")
            other.append(6, {"number": 6})
            assert len(other.entries()) == 6
            return listed

        patch.setattr(signed, "names", late)
        assert len(reader.entries()) == 5
    assert len(reader.entries()) == 6


BLANK = [" ", "\n", "\t \r\n"]
PART_BLANK = [",", ", ", "\t,\n", "KEY,", ",KEY", "KEY, ,KEY"]
NO_KEY = [";", "/", "/dev/null", "none", "KEY;KEY"]


@pytest.mark.parametrize("value", [*BLANK, *PART_BLANK, *NO_KEY])
def test_a_variable_that_names_no_key_is_refused_and_switches_nothing_off(tmp_path, monkeypatch, value):
    private, public = new_key(tmp_path, "ours")
    store = Store(str(tmp_path / "store"))
    store.write("a.json", {})
    for variable, key, blank, act in (
        (signatures.TRUSTED_KEYS, public, BLANK + PART_BLANK, lambda: store.read("a.json")),
        (signatures.SIGNING_KEY, private, BLANK, lambda: store.write("a.json", {})),
    ):
        said = (
            "names no file: correct or unset it" if value in blank else r"cannot be read as a key in PEM .*: correct it"
        )
        with monkeypatch.context() as patch:
            patch.setenv(variable, value.replace("KEY", str(key)))
            with pytest.raises(BadInput, match=f"^{variable}.*{said}"):
                act()


def test_an_empty_variable_is_one_that_is_not_set(tmp_path, monkeypatch):
    monkeypatch.setenv(signatures.TRUSTED_KEYS, "")
    monkeypatch.setenv(signatures.SIGNING_KEY, "")
    store = Store(str(tmp_path))
    store.write("a.json", {"a": 1})
    assert store.read("a.json") == {"a": 1}
