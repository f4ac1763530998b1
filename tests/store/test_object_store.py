"""Names with glob signs on every kind of store, and what an S3 server's refusals mean, over HTTP."""

import uuid
from datetime import UTC, datetime
from threading import Thread

import pytest

from pipeline.errors import BadInput, Forbidden, Unavailable
from pipeline.files import entries
from pipeline.store import object_store
from pipeline.store.documents import Document
from pipeline.store.hold import hold
from pipeline.store.objects import Store
from pipeline.tuning.journal import Journal
from tests.conftest import files_of

GLOBS = {"*": "ab", "a?b": "acb", "[ab]": "a", "[": "a"}
"""Names with glob signs, each with one that it would match as a pattern, or nearly so."""


def opened(kind, request, tmp_path, name):
    if kind == "local":
        return Store(str(tmp_path / name))
    top = uuid.uuid4().hex
    if kind == "memory":
        return Store(f"memory://{top}/{name}")
    request.getfixturevalue("s3")
    return Store(f"s3://stores/{top}/{name}")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "first").write_bytes(b"1")
    (tmp_path / "folder" / "deep" / "second").write_bytes(b"2")
    return tmp_path / "folder"


CALLS = {
    "write": lambda store, path, *_: store.write(f"{path}/x.json", {"mine": 1}),
    "require": lambda store, *_: store.require() and None,
    "create": lambda store, path, *_: store.create(f"{path}/new.json", {"mine": 2}),
    "sign": lambda store, path, *_: store.sign(f"{path}/x.json"),
    "write_bytes": lambda store, path, *_: store.write_bytes(f"{path}/raw", b"2"),
    "upload": lambda store, path, folder, _: store.upload(folder, path),
    "read": lambda store, path, *_: store.read(f"{path}/x.json"),
    "load": lambda store, path, *_: store.load(f"{path}/x.json", Document),
    "read_bytes": lambda store, path, *_: store.read_bytes(f"{path}/first"),
    "exists": lambda store, path, *_: store.exists(f"{path}/first"),
    "opened": lambda store, path, *_: store.opened(f"{path}/x.json", store.read_bytes(f"{path}/x.json")),
    "sealed": lambda store, path, *_: store.opened(f"{path}/x.json", store.sealed(f"{path}/x.json", {"mine": 3})),
    "unfinished": lambda store, *_: list(store.unfinished(datetime.now(UTC))),
    "sizes": lambda store, path, *_: store.sizes(path).keys(),  # a document is as long as its path
    "tree": lambda store, path, *_: store.tree(path).keys(),
    "names": lambda store, path, *_: store.names(path),
    "folders": lambda store, path, *_: store.folders(path),
    "faults": lambda store, path, folder, _: list(store.faults(path, entries(folder))),
    "download": lambda store, path, folder, back: store.download(path, entries(folder), back),
    "remove a file": lambda store, path, *_: store.remove(f"{path}/first"),
    "within": lambda store, path, *_: store.within(path).remove("raw"),
    "remove": lambda store, path, *_: store.remove(path),
}
"""A call of each method, in an order in which each finds something."""


def test_a_call_of_each_method_is_tried():
    methods = {name for name in vars(Store) if not name.startswith("_")} - {"path", "display_path", "prefix"}
    assert {call.partition(" ")[0] for call in CALLS} == methods


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
@pytest.mark.parametrize(("name", "match"), GLOBS.items())
def test_glob_signs_in_the_stores_place_or_in_a_name_are_taken_literally(kind, name, match, folder, request, tmp_path):
    """Each method does to a folder with such a name what it does to any other, and nothing to what the name matches."""
    plain, mine = opened(kind, request, tmp_path, "plain"), opened(kind, request, tmp_path, name)
    others = [(Store(f"{mine.url.rpartition('/')[0]}/{match}"), "runs/r"), (plain, match)]
    for store, path in others:
        for what in ("write", "upload", "write_bytes"):
            CALLS[what](store, path, folder, None)
    before = [(store.tree(path), store.read(f"{path}/x.json")) for store, path in others]
    for what, call in CALLS.items():
        answers = [
            call(store, path, folder, tmp_path / "back")
            for store, path in ((mine, "runs/r"), (plain, name), (plain, "runs/plain"))
        ]
        assert answers[0] == answers[1] == answers[2], what
    assert (mine.tree("runs/r"), plain.tree(name)) == ({}, {})
    assert [(store.tree(path), store.read(f"{path}/x.json")) for store, path in others] == before


@pytest.mark.parametrize("url", ["{}/a::b", "s3://stores/a::b", "memory://a::memory://b", "simplecache::s3://stores/a"])
def test_a_url_within_a_url_is_refused(url, tmp_path):
    """fsspec would open another place than the one that is named, without a word."""
    with pytest.raises(BadInput, match=r"cannot be used: '::' in it would make fsspec open another place"):
        Store(url.format(tmp_path)).write("x.json", {})
    assert files_of(tmp_path) == {}


class Refusing:
    """An S3 server that gives the prepared answers first, each to one request of the method; then it does its work.

    A status of 200 stands for an answer that is lost: the work is done, and the client hears of an error.
    """

    def __init__(self, app):
        self.app, self.answers, self.method, self.asked = app, [], "", 0

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] != self.method:
            return self.app(environ, start_response)
        self.asked += 1
        if not self.answers:
            return self.app(environ, start_response)
        status, code = self.answers.pop(0)
        if status == 200:
            list(self.app(environ, lambda *_: None))
            status = 500
        start_response(f"{status} No", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]

    def refuse(self, method, *answers):
        self.method, self.answers, self.asked = method, list(answers), 0


@pytest.fixture(scope="module")
def server(s3):
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = Refusing(create_backend_app("s3"))
    listening = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    app.url = f"http://127.0.0.1:{listening.port}"
    Thread(target=listening.serve_forever, daemon=True).start()
    yield app
    listening.shutdown()


@pytest.fixture
def store(server, monkeypatch):
    """A store whose client does not try again by itself, so that each prepared answer is its last word."""
    server.refuse("")
    config = {"retries": {"max_attempts": 0}}
    store = Store(f"s3://stores/{uuid.uuid4().hex}", client_kwargs={"endpoint_url": server.url}, config_kwargs=config)
    monkeypatch.setattr(store.fs, "retries", 1)
    store.write("there.json", {"there": 1})
    return store


ANSWERS = [
    (400, "BadRequest", Unavailable),
    (403, "AccessDenied", Forbidden),
    (403, "SignatureDoesNotMatch", Forbidden),
    (404, "NoSuchBucket", BadInput),
    (405, "MethodNotAllowed", Forbidden),
    (408, "RequestTimeout", Unavailable),
    (409, "OperationAborted", Unavailable),
    (411, "MissingContentLength", Unavailable),
    (429, "TooManyRequests", Unavailable),
    (500, "InternalError", Unavailable),
    (501, "NotImplemented", Forbidden),
    (502, "BadGateway", Unavailable),
    (503, "SlowDown", Unavailable),
    (503, "ServiceUnavailable", Unavailable),
    (504, "GatewayTimeout", Unavailable),
]


@pytest.mark.parametrize(("status", "code", "kind"), ANSWERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_refusal_of_a_server_is_one_of_our_errors(store, server, status, code, kind, monkeypatch):
    monkeypatch.setattr(object_store, "WAITS", ())
    calls = {
        "GET": (lambda: store.read("there.json"), lambda: store.names(""), lambda: store.tree("")),
        "PUT": (lambda: store.write("x.json", {}), lambda: store.create("y.json", {})),
        "POST": (lambda: store.remove("there.json"),),
    }
    for method, those in calls.items():
        for call in those:
            server.refuse(method, *[(status, code)] * 20)
            with pytest.raises(kind):
                call()
    server.refuse("")
    assert store.names("") == ["there.json"]


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflict_with_another_write_is_tried_again(store, server, code, monkeypatch):
    """S3 answers so while another conditional write of the object goes on; nothing was written."""
    monkeypatch.setattr(object_store, "WAITS", (0, 0, 0))
    server.refuse("PUT", *[(409, code)] * 3)
    assert store.create("a.json", {"a": 1})
    assert store.read("a.json") == {"a": 1}
    assert not store.create("a.json", {"a": 2})
    server.refuse("PUT", *[(409, code)] * 9)
    with pytest.raises(Unavailable, match="trying again can help"):
        store.create("b.json", {})
    assert server.asked == 4
    assert store.read("b.json") is None


@pytest.mark.parametrize("code", ["PreconditionFailed", "412", "Other"])
def test_a_condition_that_is_not_met_means_that_the_document_exists(store, server, code):
    """Not every server says in its answer which condition it was."""
    server.refuse("PUT", (412, code))
    assert not store.create("a.json", {})


@pytest.fixture
def losing(server):
    """A store whose client tries again by itself, on a server that can lose its answers."""
    server.refuse("")
    return Store(f"s3://stores/{uuid.uuid4().hex}", client_kwargs={"endpoint_url": server.url})


def test_what_was_written_before_the_answer_was_lost_is_not_taken_for_anothers(losing, server):
    journal = Journal(losing, "journal")
    server.refuse("PUT", (200, "InternalError"))
    journal.append_logs([{"first": 1}])
    journal.append_logs([{"second": 2}])
    assert list(Journal(losing, "journal").read_logs(0)) == [{"first": 1}, {"second": 2}]
    assert len(losing.names("journal")) == 2


def test_a_hold_whose_answer_was_lost_is_ones_own(losing, server):
    server.refuse("PUT", (200, "InternalError"))
    with hold(losing, "t") as check:
        check()
        assert losing.names("tunings/t") == ["held.json"]
