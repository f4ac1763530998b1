"""A forger who may write to the store, but has no trusted key: what no trusted key signed is never loaded or served."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import BadInput, CorruptArtifact, Forbidden
from pipeline.files import FileEntry, digest, user_cache
from pipeline.registry import model_cache
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.registry.series import SERIES, Series
from pipeline.registry.serving_dir import path_of
from pipeline.registry.signing import SIGNATURES
from pipeline.run.champion import Champion
from pipeline.run.runner import run_stage
from pipeline.scoring.predict import tag_texts
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store import documents, objects, signatures
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.sign import sign_store
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, write_csv
from tests.keys import new_key
from tests.scoring.test_watch import posts
from tests.server.conftest import serving, wait_for

TEXT = "how do I sort a list in python with a lambda"


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets the key to sign with, and those to trust."""

    def choose(signing: Path | None, *trusted: Path) -> None:
        monkeypatch.delenv(signatures.SIGNING_KEY, raising=False)
        monkeypatch.setenv(signatures.TRUSTED_KEYS, ",".join(map(str, trusted)))
        if signing:
            monkeypatch.setenv(signatures.SIGNING_KEY, str(signing))

    return choose


class Forger:
    """Writes whatever it likes to a store, with a key of its own or with none; it knows the code and every file."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.root = Path(store.url)
        self.live = Registry(store).live()
        self.old = next(card.version for card in Registry(store).cards() if card.version != self.live)
        self.private, _ = new_key(folder, "forger")
        self.keys = signatures._keys(str(self.private), "")

    def document(self, path: str) -> dict:
        document = json.loads((self.root / path).read_text())
        return {name: value for name, value in document.items() if name not in {"sha256", "signature", objects.PLACE}}

    def put(self, path: str, document: dict) -> None:
        """Write a document with the place and the digest that it must have."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(documents.encode(document | {objects.PLACE: path}))

    def sign(self, path: str, document: dict, *, as_key: str | None = None) -> None:
        """Write a document signed with the forger's own key, under its id or another's."""
        real = signatures.keys
        signatures.keys = lambda: self.keys
        try:
            made = signatures.signed(path, document, path)
        finally:
            signatures.keys = real
        if as_key:
            made["signature"]["key"] = as_key
        self.put(path, made)

    def replaced_model(self) -> dict:
        """Put other labels into the live model, in its run and where it is served; its card with their digests."""
        card = self.document(f"{CARDS}/{self.live}.json")
        name = "assets/labels.txt"
        for place in (card["path"], path_of(self.live)):
            labels = self.root / place / name
            labels.write_text("".join(f"forged{number}\n" for number, _ in enumerate(labels.read_text().splitlines())))
        entry = FileEntry(labels.stat().st_size, digest(labels))
        card["files"][name] = {"bytes": entry.bytes, "sha256": entry.sha256}
        return card


def files_only(forger: Forger) -> None:
    forger.replaced_model()


def card_without_signature(forger: Forger) -> None:
    forger.put(f"{CARDS}/{forger.live}.json", forger.replaced_model())


def card_with_the_old_signature(forger: Forger) -> None:
    path = f"{CARDS}/{forger.live}.json"
    signature = json.loads((forger.root / path).read_text())["signature"]
    forger.put(path, forger.replaced_model() | {"signature": signature})


def card_signed_by_the_forger(forger: Forger) -> None:
    forger.sign(f"{CARDS}/{forger.live}.json", forger.replaced_model())


def card_in_the_name_of_the_trusted_key(forger: Forger) -> None:
    path = f"{CARDS}/{forger.live}.json"
    trusted = json.loads((forger.root / path).read_text())["signature"]["key"]
    forger.sign(path, forger.replaced_model(), as_key=trusted)


def card_with_a_signature_of_nonsense(forger: Forger) -> None:
    nonsense = {"key": next(iter(signatures.keys().trusted)), "value": "?"}
    forger.put(f"{CARDS}/{forger.live}.json", forger.replaced_model() | {"signature": nonsense})


def another_versions_card(forger: Forger) -> None:
    """It is genuine, but of the version that was replaced."""
    shutil.copy(forger.root / CARDS / f"{forger.old}.json", forger.root / CARDS / f"{forger.live}.json")


def models_signature_gone(forger: Forger) -> None:
    shutil.rmtree(forger.root / SIGNATURES)


def models_signature_of_another_version(forger: Forger) -> None:
    shutil.copy(forger.root / SIGNATURES / f"{forger.old}.sig", forger.root / SIGNATURES / f"{forger.live}.sig")


def models_signature_of_the_forger(forger: Forger) -> None:
    from model_signing import signing

    path = forger.document(f"{CARDS}/{forger.live}.json")["path"]
    config = signing.Config().use_elliptic_key_signer(private_key=forger.private)
    config.sign(forger.root / path, forger.root / SIGNATURES / f"{forger.live}.sig")


def last_entry(forger: Forger) -> tuple[int, dict]:
    name = sorted((forger.root / LOG).glob("*.json"))[-1].name
    return int(name[:8]), forger.document(f"{LOG}/{name}")


def older_version_made_live(forger: Forger) -> None:
    number, entry = last_entry(forger)
    previous = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    made = entry | {"number": number + 1, "action": "promote", "live": forger.old, "version": forger.old}
    forger.sign(f"{LOG}/{number + 1:08d}.json", made | {"previous": previous})


def first_entry_repeated_as_the_last(forger: Forger) -> None:
    number, _ = last_entry(forger)
    shutil.copy(forger.root / LOG / "00000001.json", forger.root / LOG / f"{number + 1:08d}.json")


def last_entry_cut_off(forger: Forger) -> None:
    number, _ = last_entry(forger)
    (forger.root / LOG / f"{number:08d}.json").unlink()
    (forger.root / f"{LOG}.json").unlink()


def first_entry_lost(forger: Forger) -> None:
    (forger.root / LOG / "00000001.json").unlink()
    (forger.root / f"{LOG}.json").unlink()


def log_removed(forger: Forger) -> None:
    shutil.rmtree(forger.root / LOG)
    (forger.root / f"{LOG}.json").unlink()


def entry_changed_in_the_copy_of_the_log(forger: Forger) -> None:
    copy = forger.document(f"{LOG}.json")
    for entry in copy["entries"].values():
        entry["live"] = forger.old
    forger.sign(f"{LOG}.json", copy)


def a_store_of_the_forgers_own(forger: Forger) -> None:
    """Every document signed by the forger's key, as `tagger sign` would."""
    forger.put(f"{CARDS}/{forger.live}.json", forger.replaced_model())
    for path in forger.root.rglob("*.json"):
        name = path.relative_to(forger.root).as_posix()
        if "sha256" in (found := json.loads(path.read_text())) and isinstance(found, dict):
            forger.sign(name, forger.document(name))


def every_signature_taken_away(forger: Forger) -> None:
    forger.put(f"{CARDS}/{forger.live}.json", forger.replaced_model())
    for path in forger.root.rglob("*.json"):
        name = path.relative_to(forger.root).as_posix()
        if "sha256" in json.loads(path.read_text()):
            forger.put(name, forger.document(name))


ACTS = [
    files_only,
    card_without_signature,
    card_with_the_old_signature,
    card_signed_by_the_forger,
    card_in_the_name_of_the_trusted_key,
    card_with_a_signature_of_nonsense,
    another_versions_card,
    models_signature_gone,
    models_signature_of_another_version,
    models_signature_of_the_forger,
    older_version_made_live,
    first_entry_repeated_as_the_last,
    last_entry_cut_off,
    first_entry_lost,
    log_removed,
    entry_changed_in_the_copy_of_the_log,
    a_store_of_the_forgers_own,
    every_signature_taken_away,
]

NOT_LOADED = {entry_changed_in_the_copy_of_the_log}
"""Acts that change nothing, because what they forged is not needed."""


@pytest.fixture
def signed(two_versions: Store, tmp_path: Path, trust: Callable[..., None]) -> Store:
    """A signed store with two versions, whose key is trusted; this machine has read it."""
    ours = new_key(tmp_path, "ours")
    trust(*ours)
    documents, versions = sign_store(two_versions)
    assert documents > 20
    assert versions == 2
    assert verify(two_versions).faults == []
    return two_versions


def predicted(store: Store) -> list[str]:
    with model_cache.opened(Registry(store), None) as model:
        return [answer["tag"] for answer in tag_texts(model, [TEXT])]


def asked_by_the_gate(store: Store, folder: Path) -> bool:
    """Whether the gate finds a live model to compare a candidate with."""
    shutil.rmtree(folder, ignore_errors=True)
    champion = Champion.resolve(
        store, Run(store, "second").existing().model_copy(update={"created": datetime.now(UTC)})
    )
    assert champion is not None
    champion.fetch(folder)
    return (folder / "model/saved_model.pb").exists()


def outcome(act: Callable[[], object]) -> object:
    try:
        return act()
    except CorruptArtifact:
        return "refused"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_nothing_forged_is_loaded_asked_or_made_live(signed, tmp_path, act):
    genuine, forger = predicted(signed), Forger(signed, tmp_path)
    shutil.rmtree(model_cache.cache_folder())
    act(forger)
    log = sorted(Path(signed.url, LOG).glob("*.json"))
    tried = {
        "predict": outcome(lambda: predicted(signed)),
        "gate": outcome(lambda: asked_by_the_gate(signed, tmp_path / "champion")),
        "promote": outcome(lambda: Registry(signed).promote(forger.live, "by a person").live),
    }
    if act in NOT_LOADED:
        assert tried == {"predict": genuine, "gate": True, "promote": forger.live}
        return
    assert tried["predict"] == tried["promote"] == "refused"
    assert tried["gate"] in ("refused", False)
    assert sorted(Path(signed.url, LOG).glob("*.json")) == log
    assert verify(signed).faults != []


def test_a_server_goes_on_with_the_genuine_version_and_does_not_start_with_a_forged_one(signed, tmp_path, trust):
    forger = Forger(signed, tmp_path)
    trust(None, tmp_path / "ours.pub")
    question = {"instances": [TEXT]}
    with serving(signed, tmp_path) as server:
        before = server.client.post("/v1/models/stackoverflow_tagger:predict", json=question).json()
        older_version_made_live(forger)
        refused = lambda: "is not trusted" in server.errors.read_text()  # noqa: E731
        wait_for("the server refuses the entry", refused)
        assert server.client.post("/v1/models/stackoverflow_tagger:predict", json=question).json() == before
        assert server.answers(forger.live)
    (forger.root / LOG / f"{last_entry(forger)[0]:08d}.json").unlink()
    card_signed_by_the_forger(forger)
    program = Path(sys.executable).with_name("tagger")
    command = [program, "predict", "--store", signed.url, TEXT]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not trusted, because the key" in done.stderr
    assert "forged" not in done.stdout


def test_a_forged_result_of_a_stage_is_not_taken_up(signed, tmp_path):
    run = Run(signed, "second")
    forger = Forger(signed, tmp_path)
    manifest = forger.document("runs/second/train/manifest.json")
    forger.sign("runs/second/train/manifest.json", manifest | {"summary": manifest["summary"] | {"rows": 1}})
    with pytest.raises(CorruptArtifact, match=r"train/manifest\.json is not trusted"):
        run_stage("evaluate", run)
    forger.sign("runs/second/run.json", forger.document("runs/second/run.json"))
    with pytest.raises(CorruptArtifact, match=r"run\.json is not trusted"):
        run.record()
    forger.put("runs/second/approved.json", {"format": 2, "by": "me", "why": "", "at": "2026-01-01T00:00:00Z"})
    with pytest.raises(CorruptArtifact, match=r"approved\.json is not trusted, because it is not signed"):
        run.approval()
    for cached in (forger.root / "cache/train").glob("*.json"):
        name = cached.relative_to(forger.root).as_posix()
        forger.sign(name, forger.document(name))
        with pytest.raises(CorruptArtifact, match="is not trusted"):
            signed.read(name)


def test_a_forged_observation_starts_no_retraining(signed, tmp_path):
    Forger(signed, tmp_path).put(f"{SERIES}/00000001.json", {"number": 1, "called": True})
    with pytest.raises(CorruptArtifact, match=r"series/00000001\.json is not trusted"):
        Series(signed).observations()


def test_an_entry_names_the_one_before_it(signed):
    registry = Registry(signed)
    registry.rollback("to see")
    registry.promote(registry.cards()[0].version, "back")
    entries = registry.log.entries()
    expected = hashlib.sha256(json.dumps(entries[-2], sort_keys=True).encode()).hexdigest()
    assert entries[-1]["previous"] == expected
    assert verify(signed).faults == []


def test_keys_are_rotated_and_old_versions_stay_verifiable(signed, tmp_path, trust):
    ours, (private, public) = tmp_path / "ours.pub", new_key(tmp_path, "next")
    trust(private, public, ours)
    live = Registry(signed).live()
    Registry(signed).rollback("signed with the new key")
    Registry(signed).promote(live, "again")
    assert verify(signed).faults == []
    assert predicted(signed)
    trust(private, public)
    with pytest.raises(CorruptArtifact, match="which signed it, is not one of TAGGER_TRUSTED_KEYS"):
        Registry(signed).published(None)
    trust(private, public, ours)
    sign_store(signed)
    trust(private, public)
    assert verify(signed).faults == []


def test_without_a_key_nothing_is_written_where_only_signed_documents_are_trusted(signed, tmp_path, trust):
    trust(None, tmp_path / "ours.pub")
    assert predicted(signed)
    before = Registry(signed).events()
    with pytest.raises(Forbidden, match="so set TAGGER_SIGNING_KEY to the private key of one of them"):
        Registry(signed).rollback("without a key")
    assert Registry(signed).events() == before


def test_signing_does_not_vouch_for_what_another_key_signed(signed, tmp_path):
    card_signed_by_the_forger(Forger(signed, tmp_path))
    with pytest.raises(CorruptArtifact, match="is not trusted, because the key"):
        sign_store(signed)


def test_another_machine_notices_a_cut_off_log_once_it_has_read_it(signed, tmp_path):
    """What the log itself cannot tell: a machine that has never read it knows nothing of the lost entry."""
    forger = Forger(signed, tmp_path)
    shutil.rmtree(user_cache() / "logs")
    last_entry_cut_off(forger)
    assert Registry(signed).live() == forger.old


def test_a_version_is_signed_as_the_package_itself_checks_it(signed, tmp_path):
    registry = Registry(signed)
    command = [sys.executable, "-m", "model_signing", "verify", "key", signed.path(path_of(registry.live()))]
    command += ["--signature", signed.path(f"{SIGNATURES}/{registry.live()}.sig")]
    command += ["--public_key", str(tmp_path / "ours.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no key", "cannot be read as a key in PEM"), (None, "cannot be read as a key in PEM \\(No such file")],
)
def test_a_key_that_is_none_is_refused_in_a_sentence(tmp_path, trust, content, said):
    if content:
        (tmp_path / "key").write_bytes(content)
    Store(str(tmp_path)).write("x", {})
    trust(None, tmp_path / "key")
    with pytest.raises(BadInput, match=f"TAGGER_TRUSTED_KEYS: .*{said}"):
        Store(str(tmp_path)).read("x")
    trust(tmp_path / "key")
    with pytest.raises(BadInput, match=f"TAGGER_SIGNING_KEY: .*{said}"):
        Store(str(tmp_path)).write("x", {})


def test_a_whole_run_signs_what_it_leaves(tmp_path, trust):
    trust(*new_key(tmp_path, "ours"))
    run = Run(Store(str(tmp_path / "store")), "first")
    source = write_csv(tmp_path / "first.csv", posts(600, 5))
    run.begin(Settings.of({"source": str(source), "epochs": 4, "hidden_units": 16, "min_accuracy": 0.1}), CREATED)
    for stage in STAGES:
        run_stage(stage, run)
    assert verify(run.store).faults == []
    assert predicted(run.store)
    unsigned = [path for path in Path(run.store.url).rglob("*.json") if b'"sha256": "' in path.read_bytes()[-90:]]
    assert unsigned
    assert all("signature" in json.loads(path.read_text()) for path in unsigned)


@pytest.fixture(autouse=True)
def _no_keys_remain() -> Iterator[None]:
    yield
    signatures._keys.cache_clear()
