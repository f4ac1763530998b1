"""After a power cut, no document on the disk names a file that is missing.

Only synced data is sure to be on the disk: a file's bytes after fsync of the file, its name after fsync of its folder.
So these calls are recorded. A document counts as soon as it has its name, because the system may write it to the disk
at any time from then on.
"""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL
from pipeline.settings import Deployment
from pipeline.store.objects import Store
from pipeline.upkeep.gc import collect
from tests.conftest import CREATED, small_version


class Disk:
    """What is sure to be on the disk below a folder: files by the inode of their bytes, and names by their path."""

    def __init__(self, top):
        self.top, self.bytes, self.names = top, set(), set()
        self.documents = 0

    def sync(self, descriptor, fsync):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        fsync(descriptor)
        if os.path.isdir(path):
            self.names |= {entry.path for entry in os.scandir(path)}
        else:
            self.bytes.add(os.stat(path).st_ino)

    def surely_holds(self, path):
        above = [str(path), *(str(folder) for folder in Path(path).parents if self.top in folder.parents)]
        return os.stat(path).st_ino in self.bytes and set(above) <= self.names

    def named(self, target):
        """Check a file that was just renamed: its bytes, and the files that it names, must be on the disk."""
        target = Path(target)
        assert target.stat().st_ino in self.bytes, f"{target} has its name before its bytes are on the disk"
        if target.name == SAVED_MODEL and "models" in target.parts:
            self.require(other for other in target.parent.rglob("*") if other.is_file() and other != target)
        if target.suffix == ".json" and self.top in target.parents:
            self.documents += 1
            document = json.loads(target.read_text())
            folder = (
                document.get("path") or f"runs/{document.get('run')}/{document.get('stage')}/{document.get('attempt')}"
            )
            self.require(self.top / folder / name for name in document.get("files", ()))

    def require(self, paths):
        for path in paths:
            assert self.surely_holds(path), f"{path} is not on the disk, and what names it may be"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path / "store")
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: disk.sync(descriptor, fsync))

    def naming(call):
        def named(here, there):
            call(here, there)
            if not str(here).startswith(str(tmp_path / "out")):
                disk.named(there)

        return named

    monkeypatch.setattr(os, "replace", naming(os.replace))
    monkeypatch.setattr(os, "link", naming(os.link))
    return disk


def test_every_file_is_on_the_disk_before_the_document_that_names_it(disk, tmp_path):
    store = Store(str(tmp_path / "store"))
    for version in (1, 2):
        run = small_version(store, version, tmp_path, created=CREATED + timedelta(days=version))
        run.files.save("train", "checkpoint", tmp_path / "out1", {})
    Registry(store).rollback("worse")
    assert disk.documents > 15
    there = [path for path in disk.top.rglob("*") if path.is_file()]
    assert len(there) > 30
    assert [path for path in there if not disk.surely_holds(path)] == []


def test_documents_are_removed_from_the_disk_before_their_files(disk, tmp_path):
    """The removal of a document reaches the disk before that of the files it names."""
    store = Store(str(tmp_path / "store"))
    for version in (1, 2):
        small_version(store, version, tmp_path, created=CREATED + timedelta(days=version))
    synced = []
    sync = disk.sync
    disk.sync = lambda descriptor, fsync: (
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}")),
        sync(descriptor, fsync),
    )
    gone = [removal.path for removal in collect(store, Deployment.of({"keep_versions": 0, "keep_days": 0}))]
    assert "runs/run1" in gone
    stage, runs = synced.index(str(disk.top / "runs/run1/export")), synced.index(str(disk.top / "runs"))
    assert stage < runs
