"""Tests of every kind of store: a local disk, fsspec's memory, and S3 over HTTP."""

import os
import uuid

import fsspec
import pytest

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.files import entries
from pipeline.store.durable import WRITING
from pipeline.store.objects import Store


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "first").write_bytes(b"1")
    (tmp_path / "folder" / "deep" / "second").write_bytes(b"\x00\xff")
    return tmp_path / "folder"


@pytest.mark.parametrize("store", ["local", "memory", "s3"], indirect=True)
class TestEveryStore:
    @pytest.fixture
    def store(self, request, tmp_path):
        if request.param == "local":
            return Store(str(tmp_path / "store"))
        if request.param == "memory":
            return Store(f"memory://{uuid.uuid4().hex}")
        request.getfixturevalue("s3")
        return Store(f"s3://stores/{uuid.uuid4().hex}")

    def test_a_document_is_read_as_written(self, store):
        store.write("a/b.json", {"tag": "c++", "word": "naïve"})
        assert store.read("a/b.json") == {"tag": "c++", "word": "naïve"}
        store.write("a/b.json", {"tag": "c"})
        assert store.read("a/b.json") == {"tag": "c"}
        assert store.names("a") == ["b.json"]
        assert store.exists("a/b.json")
        assert not store.exists("a/c.json")

    def test_a_missing_document_or_folder_is_empty(self, store):
        assert store.read("nothing.json") is None
        assert store.names("nothing") == []
        assert store.folders("nothing") == []
        assert store.tree("nothing") == store.sizes("nothing") == {}

    def test_require_refuses_a_missing_store(self, store):
        with pytest.raises(BadInput, match=r"there is no store at .*: see that --store or TAGGER_STORE"):
            store.require()
        store.write("a.json", {})
        assert store.require() is store
        with pytest.raises(BadInput, match=r"a\.json is a file: name a folder"):
            Store(f"{store.url}/a.json").require()

    def test_a_folder_is_downloaded_as_uploaded(self, store, folder, tmp_path):
        store.upload(folder, "runs/a")
        store.download("runs/a", entries(folder), tmp_path / "back")
        assert entries(tmp_path / "back") == entries(folder)
        assert list(store.faults("runs/a", entries(folder))) == [None, None]

    def test_a_file_of_many_megabytes_is_downloaded_as_uploaded(self, store, folder, tmp_path):
        (folder / "large").write_bytes(os.urandom(2**20) * 11)
        store.upload(folder, "runs/a", ["large"])
        large = {"large": entries(folder)["large"]}
        store.download("runs/a", large, tmp_path / "back")
        assert entries(tmp_path / "back") == large
        assert list(store.faults("runs/a", large)) == [None]

    def test_a_changed_file_is_found_and_named(self, store, folder, tmp_path):
        store.upload(folder, "runs/a")
        store.fs.pipe_file(store.path("runs/a/deep/second"), b"\x00\xfe")
        with pytest.raises(CorruptArtifact, match="deep/second is not the file"):
            store.download("runs/a", entries(folder), tmp_path / "back")
        fault, none = store.faults("runs/a", entries(folder))
        assert (fault, none) == (f"{store.display_path('runs/a')}/deep/second has other bytes than were written", None)

    def test_a_lost_file_is_named(self, store, folder, tmp_path):
        store.upload(folder, "runs/a")
        store.fs.rm(store.path("runs/a/first"))
        with pytest.raises(CorruptArtifact, match="first is gone"):
            store.download("runs/a", entries(folder), tmp_path / "back")
        assert list(store.faults("runs/a", entries(folder))) == [None, f"{store.display_path('runs/a')}/first is gone"]

    def test_a_document_is_created_once(self, store):
        assert store.create("a/b.json", {"first": 1})
        assert not store.create("a/b.json", {"second": 2})
        assert store.read("a/b.json") == {"first": 1}
        assert store.names("a") == ["b.json"]

    def test_every_flipped_byte_of_a_document_is_found(self, store):
        store.write("a.json", {"version": 7, "tag": "c++", "files": {"x": [1, None]}})
        data = store.fs.cat_file(store.path("a.json"))
        for at in range(len(data)):
            store.fs.pipe_file(store.path("a.json"), data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :])
            with pytest.raises(CorruptArtifact, match=r"a\.json is not the document that was written there"):
                store.read("a.json")

    def test_a_folder_is_listed(self, store, folder):
        store.upload(folder, "runs/a")
        store.write("runs/b.json", {})
        assert store.names("runs") == ["a", "b.json"]
        assert store.folders("runs") == ["a"]
        assert store.sizes("runs/a") == {"deep/second": 2, "first": 1}
        assert store.tree("runs/a") == {"deep/": 0, "deep/second": 2, "first": 1}
        assert {"a/", "a/deep/", "a/first", "b.json"} <= store.tree("runs").keys()

    def test_writes_of_other_processes_are_seen_at_once(self, store):
        """Listings are not cached, not even by filesystems that do so by default."""
        store.write("a/first.json", {})
        assert (store.names("a"), store.folders("a"), list(store.tree("a"))) == (["first.json"], [], ["first.json"])
        other, root = fsspec.url_to_fs(store.url, skip_instance_cache=True)
        other.makedirs(f"{root}/a/b", exist_ok=True)
        other.pipe_file(f"{root}/a/b/second.json", b"{}")
        assert (store.names("a"), store.folders("a")) == (["b", "first.json"], ["b"])
        assert list(store.sizes("a")) == ["b/second.json", "first.json"]

    def test_a_removed_folder_is_gone(self, store, folder):
        store.upload(folder, "runs/a")
        store.remove("runs/a")
        store.remove("runs/a")
        assert store.tree("runs/a") == {}
        store.write("runs/b.json", {})
        store.remove("runs/b.json")
        assert store.read("runs/b.json") is None

    def test_files_are_uploaded_in_the_order_named(self, store, folder, monkeypatch):
        order = []
        put = store.fs.put_file
        monkeypatch.setattr(
            store.fs, "put_file", lambda here, there: (order.append(here.rsplit("/", 1)[-1]), put(here, there))
        )
        store.upload(folder, "x", ["deep/second", "first"])
        assert order == ["second", "first"]


def test_a_missing_bucket_is_bad_input_for_every_call(s3, folder, tmp_path):
    """A retry cannot help."""
    store = Store("s3://no-such-bucket/store")
    for call in (
        store.require,
        lambda: store.read("a.json"),
        lambda: store.write("a.json", {}),
        lambda: store.create("a.json", {}),
        lambda: store.upload(folder, "a"),
        lambda: store.download("a", entries(folder), tmp_path / "back"),
        lambda: list(store.faults("a", entries(folder))),
        lambda: store.names("a"),
        lambda: store.folders("a"),
        lambda: store.sizes("a"),
        lambda: store.remove("a"),
    ):
        with pytest.raises(
            BadInput, match=r"the store s3://no-such-bucket/store is in a bucket that is not there: create"
        ):
            call()


def test_a_local_document_is_never_seen_half_written(tmp_path, monkeypatch):
    """The bytes go to a file of another name, so a process that dies there leaves the old document."""
    store = Store(str(tmp_path))
    store.write("a.json", {"old": True})

    def die(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(Unavailable, match="No space left on device"):
        store.write("a.json", {"new": True})
    assert store.read("a.json") == {"old": True}
    assert store.names("") == ["a.json"]


def test_unfinished_files_of_a_killed_process_are_not_listed(tmp_path):
    store = Store(str(tmp_path))
    store.write("a.json", {})
    (tmp_path / f"b.json.0{WRITING}").write_text("half")
    assert (store.names(""), list(store.tree("")), store.folders("")) == (["a.json"], ["a.json"], [])


@pytest.mark.parametrize("url", ["nowhere://x", "abfs://container"])
def test_an_unknown_protocol_is_bad_input(url):
    with pytest.raises(BadInput, match="set TAGGER_STORE to another"):
        Store(url)
