"""Which number a version gets: the second of its run, or the next that is free, for whoever publishes when."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.registry.cards import cards_of
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.store import signatures
from pipeline.store.objects import Store
from pipeline.upkeep.verify import verify
from tests.faults.stage_that_dies import die_at
from tests.registry import publisher

FIRST = 20260105060708
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_text("graph")
    (folder / "variables").write_text("weights")
    return folder


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    request.getfixturevalue("s3")
    return Store(f"s3://stores/{uuid.uuid4().hex}", skip_instance_cache=True)


def published_at_once(store, model, runs_and_models):
    """Publish each model in a process of its own, all at one time, and return their versions."""
    start = str(time.time() + 5)
    arguments = [[store.url, run, checkpoint, str(FIRST), str(model), start] for run, checkpoint in runs_and_models]
    program = [sys.executable, "-m", "tests.registry.publisher"]
    started = [
        subprocess.Popen([*program, *each], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in arguments
    ]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * len(started), ended
    return [int(out) for out, _ in ended]


def faults(store):
    """What is wrong with the store, except that its runs have no manifests: their models only are written here."""
    return [fault for fault in verify(store).faults if "/export/manifest.json is gone" not in fault]


def published_versions(store):
    return [event.version for event in Registry(store).events() if event.action == "publish"]


def test_runs_of_one_second_that_publish_at_once_get_numbers_of_their_own(store, model):
    runs = [(f"run{number}", f"c{number}") for number in range(5)]
    versions = published_at_once(store, model, runs)
    assert sorted(versions) == list(range(FIRST, FIRST + 5))
    assert sorted(published_versions(store)) == sorted(versions)
    for version, (run, checkpoint) in zip(versions, runs, strict=True):
        card = Registry(store).card(version)
        assert (card.run, card.checkpoint) == (run, checkpoint)
    assert Registry(store).disagreement() is None
    assert faults(store) == []


def test_a_task_and_its_retry_that_publish_at_once_publish_once(store, model):
    assert published_at_once(store, model, [("run", "c")] * 4) == [FIRST] * 4
    assert published_versions(store) == [FIRST]
    assert store.names(CARDS) == [f"{FIRST}.json"]


@pytest.mark.parametrize("reading", [1, 2, 3, 4])
def test_a_retry_that_begins_at_any_reading_of_the_cards_publishes_once(tmp_path, model, monkeypatch, reading):
    store = Store(str(tmp_path / "store"))
    card = publisher.card_of("run", "c", FIRST, model)
    store.upload(model, card.path)
    read, readings = store.read, []

    def late(path):
        document = read(path)
        readings.extend([path] if path.startswith(CARDS) else [])
        if path.startswith(CARDS) and len(readings) == reading:
            monkeypatch.undo()
            assert publisher.publish(Store(store.url), card, model) == FIRST
        return document

    monkeypatch.setattr(store, "read", late)
    assert Registry(store).publish(card, compared_with=None).version == FIRST
    assert published_versions(store) == [FIRST]
    assert store.names(CARDS) == [f"{FIRST}.json"]


def is_killed(store, act, last):
    """Act in a fork that dies at its n-th write to the store; False if it made fewer."""
    child = os.fork()
    if not child:
        status = 1
        try:
            die_at(store.fs, last, "before")
            act()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -9}
    return status != 0


@pytest.mark.parametrize(("taken_by", "own"), [([], FIRST), (["other"], FIRST + 1), (["run", "other"], FIRST + 2)])
def test_a_publication_killed_at_any_write_keeps_its_number(tmp_path, model, taken_by, own):
    last, killed = 0, True
    while killed:
        last += 1
        store = Store(str(tmp_path / f"store{last}"))
        for number, run in enumerate(taken_by):
            publisher.publish(store, publisher.card_of(run, f"before{number}", FIRST, model), model)
        card = publisher.card_of("run", "c", FIRST, model)
        killed = is_killed(store, lambda card=card, store=store: publisher.publish(store, card, model), last)
        assert publisher.publish(store, card, model) == own
        assert publisher.publish(store, card, model) == own
        assert published_versions(store) == list(range(FIRST, own + 1))
        assert sorted(store.names(CARDS)) == [f"{version}.json" for version in range(FIRST, own + 1)]
        assert faults(store) == []
    assert last > 8


def test_a_number_reserved_by_a_publication_that_never_ended_is_passed_over(tmp_path, model):
    store = Store(str(tmp_path / "store"))
    card = publisher.card_of("dead", "c", FIRST, model)
    store.upload(model, card.path)
    store.create(f"{CARDS}/{FIRST}.json", card.to_dict())
    for run, version in (("run", FIRST + 1), ("dead", FIRST + 2)):
        assert publisher.publish(store, publisher.card_of(run, "other", FIRST, model), model) == version
    assert published_versions(store) == [FIRST + 1, FIRST + 2]
    assert faults(store) == []


def test_the_signature_of_a_version_is_not_replaced_by_that_of_the_next(tmp_path, model, monkeypatch):
    key = ec.generate_private_key(ec.SECP256R1())
    plain, public = serialization.NoEncryption(), serialization.PublicFormat.SubjectPublicKeyInfo
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(pem, public))
    monkeypatch.setenv(signatures.SIGNING_KEY, str(tmp_path / "key.pem"))
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(tmp_path / "key.pub"))
    store = Store(str(tmp_path / "store"))
    for run in ("a", "b", "a", "b"):
        (model / "variables").write_text(f"weights of {run}")
        publisher.publish(store, publisher.card_of(run, run, FIRST, model), model)
    assert published_versions(store) == [FIRST, FIRST + 1]
    for version in (FIRST, FIRST + 1):
        assert Registry(store).fetch(version, tmp_path / str(version)).version == version


def test_a_card_and_a_log_of_the_former_code_go_on(tmp_path, model):
    """An entry of the log had no `model`, and a card was written before a document had a format."""
    store = Store(str(tmp_path / "store"))
    card = publisher.card_of("run", "c", FIRST, model)
    publisher.publish(store, card, model)
    for path, gone in ((f"{CARDS}/{FIRST}.json", {"format"}), (f"{LOG}/00000001.json", {"format", "model"})):
        document = store.read(path)
        store.write(path, {name: value for name, value in document.items() if name not in gone | {"sha256"}})
    store.remove(f"{LOG}.json")
    assert publisher.publish(store, card, model) == FIRST
    assert publisher.publish(store, publisher.card_of("run", "d", FIRST, model), model) == FIRST + 1
    assert [each.version for each in cards_of(store, "run", FIRST)] == [FIRST, FIRST + 1]
