"""Errors of a store are reported in one sentence, which says whether a retry can help."""

import os
import socketserver
import threading
import time
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from pipeline.errors import Forbidden, Unavailable
from pipeline.files import entries
from pipeline.registry.registry import Registry
from pipeline.settings import Deployment
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, attempts, small_version

QUICK = {"retries": {"max_attempts": 1, "mode": "standard"}, "connect_timeout": 0.3, "read_timeout": 0.3}
ANSWERS = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nhalf of it",
    "silence": b"",
}


@pytest.fixture(params=ANSWERS)
def broken_s3(request, monkeypatch):
    """The name of a fault, and a store on a server that shows this fault at every request."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            if request.param == "silence":
                time.sleep(1)
            self.request.sendall(ANSWERS[request.param])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.server_address))
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": QUICK, "skip_instance_cache": True})
        monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
        yield request.param, Store("s3://bucket/store")
        server.shutdown()


def calls(store, folder):
    (folder / "here").mkdir()
    (folder / "here" / "file").write_text("x")
    described = entries(folder / "here")
    return {
        "read": lambda: store.read("a.json"),
        "write": lambda: store.write("a.json", {}),
        "create": lambda: store.create("a.json", {}),
        "upload": lambda: store.upload(folder / "here", "there"),
        "download": lambda: store.download("there", described, folder / "back"),
        "names": lambda: store.names("a"),
        "sizes": lambda: store.sizes("a"),
        "remove": lambda: store.remove("a"),
        "faults": lambda: list(store.faults("there", described)),
    }


def test_every_fault_of_s3_is_one_sentence(broken_s3, tmp_path):
    fault, store = broken_s3
    kind = Forbidden if fault == "403" else Unavailable
    for name, call in calls(store, tmp_path).items():
        with pytest.raises(kind) as caught:
            call()
        sentence = str(caught.value)
        assert sentence.startswith("store: s3://bucket/store/"), (name, sentence)
        assert ("trying again cannot help" in sentence) == (fault == "403"), (name, sentence)
        assert "\n" not in sentence


def test_a_full_disk_can_be_retried(tmp_path):
    """A real one: a file system of one megabyte, if this machine allows mounting it."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {folder} 2>/dev/null"):  # noqa: S605 - the folder is ours
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        (tmp_path / "big").mkdir()
        (tmp_path / "big" / "file").write_bytes(bytes(2**21))
        store = Store(str(folder / "store"))
        with pytest.raises(Unavailable, match=r"No space left on device\); trying again can help"):
            store.upload(tmp_path / "big", "there")
        assert store.sizes("there") == {}
        os.system(f"mount -o remount,ro {folder}")  # noqa: S605 - the folder is ours
        with pytest.raises(Forbidden, match=r"Read-only file system\); trying again cannot help"):
            store.write("a.json", {})
    finally:
        os.system(f"umount {folder}")  # noqa: S605 - the folder is ours


def test_a_full_scratch_folder_is_not_blamed_on_the_store(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(bytes(2**21))
    store = Store(str(tmp_path / "store"))
    store.upload(tmp_path / "big", "there")
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {folder} 2>/dev/null"):  # noqa: S605 - the folder is ours
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        with pytest.raises(Unavailable, match=rf"{folder}/scratch is full \(No space left.*trying again can help"):
            store.download("there", entries(tmp_path / "big"), folder / "scratch")
    finally:
        os.system(f"umount {folder}")  # noqa: S605 - the folder is ours


def test_permanent_errors_of_a_disk_are_not_retried(tmp_path):
    (tmp_path / "file").write_text("?")
    in_the_way = r"(File exists|Not a directory)\); trying again cannot help: see that no file is in the place"
    for path in ("a.json", "a/b.json"):
        with pytest.raises(Forbidden, match=in_the_way):
            Store(str(tmp_path / "file")).write(path, {})
    with pytest.raises(Forbidden, match=r"File name too long\); trying again cannot help: start a run with"):
        Store(str(tmp_path)).write(f"{'x' * 300}/a.json", {})


def test_an_s3_store_without_keys_is_not_retried(s3, monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    store = Store("s3://stores/a", skip_instance_cache=True)
    with pytest.raises(Forbidden, match="trying again cannot help: set the store's keys in AWS_ACCESS_KEY_ID"):
        store.write("a.json", {})


def test_of_two_concurrent_attempts_one_counts_and_the_other_is_garbage(tmp_path, new_run, monkeypatch):
    """A zombie and its retry: both upload, then both write the manifest."""
    zombie, retry = new_run(), new_run()
    folders = {}
    for name in ("zombie", "retry"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "file").write_text(name)
    facts = {"inputs": {}, "summary": {"rows": 1}, "seconds": 1, "peak_mib": None}
    write = zombie.store.write

    def late(path, document):
        monkeypatch.undo()
        retry.commit("ingest", folders["retry"], **facts)
        write(path, document)

    monkeypatch.setattr(zombie.store, "write", late)
    kept = zombie.commit("ingest", folders["zombie"], **facts)
    run = Run(Store(zombie.store.url), "a")
    assert run.manifest("ingest") == kept
    assert len(attempts(run, "ingest")) == 2
    assert verify(run.store).faults == []
    published = small_version(run.store, 1, tmp_path, created=CREATED)
    card = Registry(run.store).card(1)
    other = card.model_copy(update={"version": 2, "run": "a", "checkpoint": "2"})
    Registry(run.store).publish(other, compared_with=1)
    (loser,) = set(attempts(run, "ingest")) - {kept.attempt}
    later = datetime.now(UTC) + timedelta(days=8)  # until then the run may be under way
    gone = [removal.path for removal in collect(run.store, Deployment.of({"keep_days": 0}), later)]
    assert [path for path in gone if not path.startswith(published.path)] == [f"runs/a/ingest/{loser}"]
    assert attempts(run, "ingest") == [kept.attempt]
    # Of version 2 nothing but the card was made.
    assert [fault for fault in verify(run.store).faults if "runs/a/export/manifest.json" not in fault] == []
