"""Names that a person, a form, a URL or a stored document gives, where they become paths: none leaves its place."""

import uuid
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.files import FileEntry
from pipeline.registry.card import Card
from pipeline.settings import Settings
from pipeline.store import documents
from pipeline.store.hold import held, hold
from pipeline.store.manifest import Manifest
from pipeline.store.names import LONGEST, is_name
from pipeline.store.notes import Saved
from pipeline.store.objects import Store
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run
from pipeline.tuning.documents import Asked, Result
from pipeline.tuning.tuning import TuningRun
from pipeline.tuning.winner import latest, result_of, with_tuned
from tests.conftest import CREATED, files_of

LEAVING = ["..", "../x", "/etc", "a/../../b", "a//b", "./a", "a/", "a\0b"]
"""Paths that no store takes, because they lead elsewhere or have two forms."""

HOSTILE = [*LEAVING, "", ".", "...", "a/b", "a\\b", "..\\x", "~", "~root", "%2e%2e", "%2e%2e%2fx", "a*", "?", "[a]"]
HOSTILE += [
    "a b",
    "a\n",
    "a::b",
    "file:x",
    "-/",
    "\u2024\u2024",
    "\uff0e\uff0e/x",
    "a\u2215b",
    "é",
    "a\u202e",
    "\ud800",
]
HOSTILE += ["x" * (LONGEST + 1), "../" * 50 + "etc/passwd"]

SHA = "0" * 64


@pytest.fixture
def store(tmp_path):
    """A store in which runs and tunings have been made, so that `..` in a path would be found."""
    for folder in ("store/runs", "store/tunings", "data/evil"):
        (tmp_path / folder).mkdir(parents=True)
    return Store(str(tmp_path / "store"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_names_nothing(store, tmp_path, name):
    before = files_of(tmp_path)
    assert not is_name(name)
    assert not held(store, name)
    for open_it in (
        lambda: Run(store, name),
        lambda: TuningRun(store, name),
        lambda: result_of(store, name),
        lambda: with_tuned(store, Settings.model_construct(tuned=name)),
        lambda: hold(store, name).__enter__(),
    ):
        with pytest.raises(BadInput, match=r"cannot name a (run|tuning): use up to 255 letters, digits"):
            open_it()
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "-", "_", ".a", "a.", "..a", "20261122T074035Z", "x" * LONGEST])
def test_an_ordinary_name_names_a_folder(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/../../b", "%2e%2e/x", "a*", "x" * (LONGEST + 1)])
@pytest.mark.parametrize("command", [["tunings"], ["tune"], ["show"], ["report"], ["run", "--run"], ["run", "--set"]])
def test_a_hostile_name_on_the_command_line_is_bad_input(store, tmp_path, command, name, monkeypatch, capsys):
    store.write("tunings/t/tuning.json", {})
    before = files_of(tmp_path)
    given = f"tuned={name}" if command[-1] == "--set" else name
    monkeypatch.setattr("sys.argv", ["tagger", *command, given, "--store", store.url])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, files_of(tmp_path)) == (2, before)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "No such option" not in err


MANIFEST = {"stage": "train", "run": "r", "attempt": "20260101T000000-00000000", "files": {}, "inputs": {}} | {
    "summary": {},
    "seconds": 1,
    "peak_mib": None,
    "finished": "2026-01-01T00:00:00",
}
CARD = {"version": 1, "run": "r", "data": "2026", "path": "runs/r/export/a", "checkpoint": "c", "accuracy": 1} | {
    "macro_f1": 1,
    "tags": 2,
    "synthetic": False,
    "published": "2026",
    "files": {},
}
SAVED = {"path": "runs/r/report/page/00", "files": {}, "inputs": {}}
TRIAL = {"number": 0, "origin": "search", "state": "scored", "settings": {"dropout": 0.5}, "seconds": 1} | {
    "accuracy": 0.9,
    "best_epoch": 2,
    "curve": [],
}
RESULT = {"tuning": "t", "finished": CREATED.isoformat(), "source": "x", "posts": "", "validation_posts": 1} | {
    "searched": [],
    "trials": [TRIAL],
    "winner": 0,
    "against": {},
}
ASKED = {"tuning": "t", "created": CREATED.isoformat(), "settings": {}, "options": {}, "deployment": {}}


def with_file(document, name):
    return document | {"files": {name: {"bytes": 1, "sha256": SHA}}}


FIELDS = {
    "manifest.stage": (Manifest, lambda name: MANIFEST | {"stage": name}),
    "manifest.run": (Manifest, lambda name: MANIFEST | {"run": name}),
    "manifest.attempt": (Manifest, lambda name: MANIFEST | {"attempt": name}),
    "manifest.files": (Manifest, lambda name: with_file(MANIFEST, name)),
    "card.run": (Card, lambda name: CARD | {"run": name}),
    "card.path": (Card, lambda name: CARD | {"path": name}),
    "card.path in runs": (Card, lambda name: CARD | {"path": f"runs/{name}/export/a"}),
    "card.files": (Card, lambda name: with_file(CARD, name)),
    "saved.path": (Saved, lambda name: SAVED | {"path": name}),
    "saved.files": (Saved, lambda name: with_file(SAVED, name)),
    "result.tuning": (Result, lambda name: RESULT | {"tuning": name}),
    "tuning.tuning": (Asked, lambda name: ASKED | {"tuning": name}),
}
"""Each field of a document that becomes a path, or a part of one."""

DEEP = {"manifest.files", "card.files", "saved.path", "saved.files"}
"""Those in which a path of several parts is right."""


PLACES = [(field, name) for field in FIELDS for name in HOSTILE if field not in DEEP or name != "a/b"]


@pytest.mark.parametrize(("field", "name"), PLACES)
def test_a_document_whose_path_leaves_its_place_is_refused_by_its_parser(field, name):
    kind, document = FIELDS[field]
    with pytest.raises(CorruptArtifact, match=f"the place is not a {kind.WHAT} that this version can read"):
        kind.parse(document(name), "the place")


@pytest.mark.parametrize("document", [MANIFEST, CARD, SAVED, RESULT, ASKED])
def test_the_same_document_with_ordinary_names_is_read(document):
    kind = {id(MANIFEST): Manifest, id(CARD): Card, id(SAVED): Saved, id(RESULT): Result, id(ASKED): Asked}[
        id(document)
    ]
    kind.parse(with_file(document, "variables/variables.data-00000-of-00001") if "files" in document else document, "x")


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_no_method_of_a_store_leaves_it(kind, name, tmp_path, request):
    if kind == "s3":
        request.getfixturevalue("s3")
    top = uuid.uuid4().hex
    outer = Store({"local": str(tmp_path / top), "memory": f"memory://{top}", "s3": f"s3://stores/{top}"}[kind])
    outer.write("x.json", {"outside": 1})
    store = Store(f"{outer.url}/store")
    store.write("a/x.json", {"inside": 1})
    entry = {name: FileEntry(1, SHA)}
    back = tmp_path / "a" / "back"
    back.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for call in (
        lambda: store.read(name),
        lambda: store.read_bytes(name),
        lambda: store.write(name, {}),
        lambda: store.write_bytes(name, b""),
        lambda: store.create(name, {}),
        lambda: store.sign(name),
        lambda: store.names(name),
        lambda: store.folders(name),
        lambda: store.tree(name),
        lambda: store.sizes(name),
        lambda: store.remove(name),
        lambda: store.within(name),
        lambda: store.upload(back, name, ["x"]),
        lambda: store.upload(back, "a", [name]),
        lambda: store.download(name, {"x": FileEntry(1, SHA)}, back),
        lambda: store.download("a", entry, back),
        lambda: list(store.faults("a", entry)),
        lambda: list(store.faults(name, {"x": FileEntry(1, SHA)})),
    ):
        with pytest.raises(BadInput, match="is not a path in the store"):
            call()
    assert sorted(tmp_path.rglob("*")) == before
    assert outer.read("x.json") == {"outside": 1}


def planted(path, document):
    """Write a document as whoever may write to the place does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(documents.encode(document))


SETTINGS = {"source": "/etc/passwd", "force": "drift", "tuned": "x", "publish": True, "min_accuracy": 0.0, "no": 1}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_result_sets_only_what_a_tuning_may_set(store, tmp_path, name):
    settings = TRIAL["settings"] | {name: SETTINGS[name]}
    planted(tmp_path / "store/tunings/evil/result.json", RESULT | {"trials": [TRIAL | {"settings": settings}]})
    for tuned in ("evil", "latest"):
        with pytest.raises(CorruptArtifact, match=rf"a tuning does not set {name}"):
            with_tuned(store, Settings(tuned=tuned))
    references = ASKED | {"references": {"previous winner": settings}}
    with pytest.raises(CorruptArtifact, match=rf"a tuning does not set {name}"):
        Asked.parse(references, "x")


@pytest.mark.parametrize(
    "changed",
    [
        {"winner": 1},
        {"trials": []},
        {"trials": [TRIAL | {"accuracy": None}]},
        {"trials": [TRIAL | {"best_epoch": None}]},
        {"trials": [TRIAL | {"best_epoch": -1}]},
        {"trials": [TRIAL | {"temperature": -1}]},
        {"trials": [TRIAL | {"settings": {"dropout": 7}}]},
    ],
)
def test_a_result_of_which_no_run_can_be_made_is_refused(store, tmp_path, changed):
    planted(tmp_path / "store/tunings/evil/result.json", RESULT | changed)
    with pytest.raises(CorruptArtifact, match=r"result\.json is not a tuning's result that this version can read"):
        latest(store)


def test_a_folder_among_the_tunings_that_is_none_is_ignored(store, tmp_path):
    planted(tmp_path / "store/tunings/a copy of t/result.json", RESULT)
    assert latest(store) is None
    planted(tmp_path / "store/tunings/t/result.json", RESULT)
    assert latest(store).tuning == "t"


def test_a_trial_that_cannot_be_read_is_named(store, tmp_path):
    planted(tmp_path / "store/tunings/t/done/0000.json", {"number": "x"})
    with pytest.raises(CorruptArtifact, match=r"done/0000\.json is not a trial that this version can read"):
        TuningRun(store, "t").trials()


@pytest.mark.parametrize("name", ["../../plugins/evil.py", "/evil.py", "a/../../evil.py", "x/../../../evil.py"])
def test_a_forged_report_writes_nothing_outside_its_folder(store, tmp_path, name):
    """As the API server of Airflow fetches it, whose plugins and DAGs are files beside."""
    run = Run(store, "r")
    planted(Path(store.path(f"{run.path}/{REPORT}/{PAGE}.json")), with_file(SAVED, name))
    before = files_of(tmp_path)
    with pytest.raises(CorruptArtifact, match="is not a piece of unfinished work that this version can read"):
        run.files.resume(REPORT, PAGE, {}, tmp_path / "scratch")
    assert files_of(tmp_path) == before
