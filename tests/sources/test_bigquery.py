"""Reading posts from BigQuery: from an emulator with Google's own clients, and what Google's service may answer."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as client_of_google
from google.cloud.bigquery_storage import types

from pipeline.errors import BadInput, TaggerError, Unavailable
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.source_policy import checked
from pipeline.sources import bigquery, reader
from pipeline.sources.source import Source
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY
from tests.dags.conftest import free_ports

EMULATOR = Path(__file__).parents[2] / ".emulator/bin/python"
ARTICLES = Path(__file__).parents[2] / "data/stackoverflow.sql"
START = """
from bqemulator.storage.engine import DuckDBEngine
DuckDBEngine._load_spatial = lambda self: None  # an extension that it would download
from bqemulator.cli import main
main()
"""
Post = tuple[str, str]


def addresses(monkeypatch: pytest.MonkeyPatch, rest: int, storage: int) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{rest}")
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", f"127.0.0.1:{storage}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "ours")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The emulator's two ports."""
    if not EMULATOR.parents[1].joinpath("installed").exists():
        pytest.skip("needs BigQuery's emulator (make emulator)")
    rest, storage = free_ports(2)
    log = tmp_path_factory.mktemp("emulator") / "log"
    command = [EMULATOR, "-c", START, "start", "--rest-port", rest, "--grpc-port", storage]
    with log.open("w") as out, subprocess.Popen([*map(str, command)], stdout=out, stderr=out) as process:
        try:
            end = time.monotonic() + 60
            while "grpc.listen" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield rest, storage
        finally:
            process.kill()


@pytest.fixture
def google(emulator: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Google's client of the emulator, where this process finds it too."""
    addresses(monkeypatch, *emulator)
    options = {"api_endpoint": os.environ["BIGQUERY_EMULATOR_HOST"]}
    client = client_of_google.Client(project="ours", credentials=AnonymousCredentials(), client_options=options)
    client.delete_dataset("so", delete_contents=True, not_found_ok=True)
    client.create_dataset("so")
    return client


def fill(google: Any, rows: list[Post], name: str = "ours.so.posts", kind: str = "STRING") -> str:
    fields = {"post": "STRING", "tags": kind, "score": "INTEGER"}
    schema = [client_of_google.SchemaField(name, kind) for name, kind in fields.items()]
    google.create_table(client_of_google.Table(name, schema=schema))
    add(google, rows, name)
    return f"bigquery://{name}"


def add(google: Any, rows: list[Post], name: str = "ours.so.posts") -> None:
    found = [{"post": post, "tags": tag, "score": score} for score, (post, tag) in enumerate(rows)]
    for start in range(0, len(found), 1000):
        assert google.insert_rows_json(name, found[start : start + 1000]) == []


def read(source: str, **options: Any) -> list[Post]:
    wanted: dict[str, Any] = {"text_column": "post", "tag_column": "tags"} | options
    blocks = list(reader.read(Source.parse(source), **wanted))
    numbers = [row for block in blocks for rows in (block.posts, block.rejected) for row in rows["row"].to_pylist()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    return sorted((row["post"], row["tag"]) for block in blocks for row in block.posts.to_pylist())


def refusal(source: str, kind: type[TaggerError] = BadInput, **options: Any) -> str:
    with pytest.raises(TaggerError) as raised:
        read(source, **options)
    assert type(raised.value) is kind, raised.value
    return str(raised.value)


class TestEmulator:
    def test_a_table_is_read_whole(self, google):
        rows = [(f"post {i} with é and \n a line", f"tag {i % 3}") for i in range(9_000)]
        assert read(fill(google, rows)) == sorted(rows)

    def test_a_filter_chooses_rows(self, google):
        source = fill(google, TINY)
        assert read(f"{source}?where=tags = 'java' AND score < 5") == sorted(
            row for score, row in enumerate(TINY) if row[1] == "java" and score < 5
        )

    def test_columns_are_chosen_and_faulty_rows_rejected(self, google):
        source = fill(google, [("", "java"), ("how", ""), ("why", "c")])
        assert read(source) == [("why", "c")]
        rejected = [
            b.rejected["reason"].to_pylist()
            for b in reader.read(Source.parse(source), text_column="tags", tag_column="post")
        ]
        assert rejected == [["empty tag", "empty post"]]

    def test_several_tags_are_texts_or_arrays(self, google):
        assert read(fill(google, [("how", "python|pandas")]), several=True) == [("how", "pandas|python")]
        fields = [("post", "STRING", "NULLABLE"), ("tags", "STRING", "REPEATED")]
        schema = [client_of_google.SchemaField(name, kind, mode) for name, kind, mode in fields]
        google.create_table(client_of_google.Table("ours.so.arrays", schema=schema))
        rows = [{"post": "a", "tags": ["python", "pandas"]}, {"post": "b", "tags": []}, {"post": "c", "tags": ["c#"]}]
        assert google.insert_rows_json("ours.so.arrays", rows) == []
        assert read("bigquery://ours.so.arrays", several=True) == [("a", "pandas|python"), ("c", "c#")]
        assert read("bigquery://ours.so.arrays") == [("c", "c#")]
        assert "has ARRAY<STRING> in column 'tags'" in refusal(
            "bigquery://ours.so.arrays", text_column="tags", tag_column="post"
        )

    def test_a_query_is_stored_and_read(self, google, tmp_path, caplog):
        fill(google, TINY)
        sql = "SELECT CONCAT(post, ' & ', tags) AS post, tags FROM `ours.so.posts` WHERE score < 4 -- the first"
        wanted = sorted((f"{post} & {tag}", tag) for post, tag in TINY[:4])
        caplog.set_level("INFO")
        assert read(f"bigquery://?into=ours.so&query={sql}") == wanted
        assert "the query reads 0.00 GB" in caplog.text
        (tmp_path / "query.sql").write_text(sql.replace("FROM", "\nFROM") + "\n;\n")
        assert read(f"bigquery://?into=ours.so&file={tmp_path}/query.sql") == wanted

    def test_the_articles_query_finds_posts_with_exactly_one_of_its_tags(self, google, tmp_path):
        schema = [client_of_google.SchemaField(name, "STRING") for name in ("title", "body", "tags")]
        google.create_table(client_of_google.Table("ours.so.questions", schema=schema))
        body = "<p>a &lt;b&gt; &amp;lt;</p>"
        tags = ["python|pandas", "java|c#", "haskell", "c++"]
        rows = [{"title": f"{number}?", "body": body, "tags": each} for number, each in enumerate(tags)]
        assert google.insert_rows_json("ours.so.questions", rows) == []
        sql = ARTICLES.read_text().replace("bigquery-public-data.stackoverflow.posts_questions", "ours.so.questions")
        (tmp_path / "query.sql").write_text(sql)
        found = read(f"bigquery://?into=ours.so&file={tmp_path}/query.sql")
        assert found == [("0?\n a <b> &lt; ", "python"), ("3?\n a <b> &lt; ", "c++")]

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("bigquery://ours.so.none", "bigquery://ours.so.none does not exist in BigQuery"),
            ("bigquery://ours.none.posts", "does not exist in BigQuery"),
            ("bigquery://ours.so.seen", "is of type VIEW, which cannot be read in streams"),
            ("bigquery://ours.so.numbers", "has INTEGER in column 'tags', not STRING: set tag_column"),
            ("bigquery://ours.so.posts?where=nothing = 1", "nothing"),
            ("bigquery://?into=ours.so&query=SELEC 1", "BigQuery refuses the query or the filter (Syntax error"),
            ("bigquery://?into=ours.so&query=SELECT post FROM ours.so.posts", "has no column 'tags' (it has: post)"),
        ],
    )
    def test_what_cannot_be_read_is_said_in_a_sentence(self, google, source, said):
        fill(google, TINY)
        fill(google, [], "ours.so.numbers", "INTEGER")
        google.query("CREATE OR REPLACE VIEW ours.so.seen AS SELECT post, tags FROM ours.so.posts").result()
        assert said in refusal(source)

    def test_a_table_larger_than_allowed_is_refused(self, google):
        source = fill(google, [("x" * 1000, "java")] * 100)
        assert "is larger than max_source_bytes=50,000" in refusal(source, max_bytes=50_000)

    def test_an_unchanged_table_is_not_read_again(self, google, tmp_path):
        settings = Settings(source=fill(google, TINY), split="hash", train_fraction=0.5)
        store = Store(str(tmp_path))

        def ingested(name: str) -> dict[str, Any]:
            run = Run(store, name)
            run.begin(settings, CREATED)
            return run_stage("ingest", run)

        assert ingested("first")["posts"] == 8
        ingested("second")
        assert Run(store, "second").manifests()["ingest"].run == "first"
        add(google, [("one more post", "python")])
        assert ingested("third")["posts"] == 9

    def test_a_view_and_a_query_for_the_time_have_no_fingerprint(self, google):
        source = fill(google, TINY)
        google.query("CREATE OR REPLACE VIEW ours.so.seen AS SELECT post, tags FROM ours.so.posts").result()
        assert Source.parse(source).fingerprint() is not None
        assert Source.parse("bigquery://ours.so.seen").fingerprint() is None
        assert Source.parse("bigquery://?query=SELECT post FROM t WHERE day = CURRENT_DATE()").fingerprint() is None


ARROW = pa.schema([("post", pa.string()), ("tags", pa.string())])
TABLE = {
    "tableReference": {"projectId": "ours", "datasetId": "so", "tableId": "posts"},
    "schema": {"fields": [{"name": "post", "type": "STRING"}, {"name": "tags", "type": "STRING"}]},
    "type": "TABLE",
    "etag": "1",
    "lastModifiedTime": "1764000000000",
    "numRows": "6",
}
"""The answer of https://cloud.google.com/bigquery/docs/reference/rest/v2/tables/get, as far as it is used."""


class Service:
    """Answers Google's clients as its documentation says, also with the errors that the emulator never has."""

    def __init__(self) -> None:
        self.status, self.answer = 200, TABLE
        self.ends_with: tuple[grpc.StatusCode, str] | None = None
        self.asked: list[str] = []
        self.schema, self.tags = ARROW, [["java"], ["java"]]
        service = self

        class Rest(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.asked.append(self.path)
                body = json.dumps(service.answer).encode()
                self.send_response(service.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.rest = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
        Thread(target=self.rest.serve_forever, daemon=True).start()
        self.storage = grpc.server(futures.ThreadPoolExecutor(8))
        handlers = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                self.session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                self.rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
            ),
        }
        name = "google.cloud.bigquery.storage.v1.BigQueryRead"
        self.storage.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.port = self.storage.add_insecure_port("127.0.0.1:0")
        self.storage.start()

    def session(self, request: Any, _: Any) -> Any:
        names = [f"stream {i}" for i in range(min(3, request.max_stream_count))]
        schema = types.ArrowSchema(serialized_schema=self.schema.serialize().to_pybytes())
        return types.ReadSession(
            name="s", arrow_schema=schema, streams=[types.ReadStream(name=name) for name in names], data_format="ARROW"
        )

    def rows(self, request: Any, context: Any) -> Iterator[Any]:
        for page in range(2):
            posts = pa.record_batch([[f"{request.read_stream} page {page}"], self.tags[page]], schema=self.schema)
            batch = types.ArrowRecordBatch(serialized_record_batch=posts.serialize().to_pybytes(), row_count=1)
            yield types.ReadRowsResponse(arrow_record_batch=batch, row_count=1)
            if self.ends_with and request.read_stream == "stream 1":
                context.abort(*self.ends_with)

    def stop(self) -> None:
        self.rest.shutdown()
        self.rest.server_close()
        self.storage.stop(0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service()
    addresses(monkeypatch, made.rest.server_address[1], made.port)
    monkeypatch.setattr(bigquery, "RETRY_SECONDS", 0.5)
    yield made
    made.stop()


class TestService:
    SOURCE = "bigquery://ours.so.posts"

    def test_several_streams_are_read_in_turn(self, service):
        [block, *rest] = reader.read(Source.parse(self.SOURCE), text_column="post", tag_column="tags")
        found = [text for each in (block, *rest) for text in each.posts["post"].to_pylist()]
        assert found == [f"stream {stream} page {page}" for page in range(2) for stream in range(3)]

    @pytest.mark.parametrize(
        ("kind", "tags"),
        [
            (pa.string(), [["python|pandas"], ["<java>"]]),
            (pa.list_(pa.string()), [[["python", "pandas"]], [["java"]]]),
        ],
        ids=["texts", "arrays"],
    )
    def test_several_tags_are_texts_or_arrays(self, service, kind, tags):
        service.schema, service.tags = ARROW.set(1, pa.field("tags", kind)), tags
        mode = "REPEATED" if pa.types.is_list(kind) else "NULLABLE"
        fields = [{"name": "post", "type": "STRING"}, {"name": "tags", "type": "STRING", "mode": mode}]
        service.answer = TABLE | {"schema": {"fields": fields}}
        assert {tag for _, tag in read(self.SOURCE, several=True)} == {"pandas|python", "java"}
        assert [tag for _, tag in read(self.SOURCE)] == ["java"] * 3
        blocks = reader.read(
            Source.parse(self.SOURCE), text_column="post", tag_column="tags", keep=frozenset({"pandas", "c"})
        )
        assert [(block.posts["tag"].to_pylist(), block.left_out) for block in blocks].count((["pandas"], 0)) == 3
        if mode == "REPEATED":
            assert "has ARRAY<STRING> in column 'tags'" in refusal(self.SOURCE, text_column="tags", tag_column="post")

    @pytest.mark.parametrize(
        ("code", "kind", "said"),
        [
            (grpc.StatusCode.FAILED_PRECONDITION, Unavailable, "BigQuery ended before all was done"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable, "a quota of BigQuery is used up"),
            (grpc.StatusCode.PERMISSION_DENIED, BadInput, "Google denies access"),
            (grpc.StatusCode.INVALID_ARGUMENT, BadInput, "BigQuery refuses the query or the filter"),
            (grpc.StatusCode.DATA_LOSS, Unavailable, "BigQuery failed"),
        ],
    )
    def test_a_stream_that_ends_half_way_is_an_error(self, service, code, kind, said):
        service.ends_with = code, "session 7 is no more"
        sentence = refusal(self.SOURCE, kind)
        assert said in sentence
        assert "session 7 is no more" in sentence

    @pytest.mark.parametrize(
        ("status", "reason", "kind", "said"),
        [
            (403, "accessDenied", BadInput, "Google denies access (No); grant the roles BigQuery Data Viewer"),
            (403, "quotaExceeded", Unavailable, "a quota of BigQuery is used up (No); try again later"),
            (403, "rateLimitExceeded", Unavailable, "try again later"),
            (404, "notFound", BadInput, "does not exist in BigQuery (No): correct the source"),
            (400, "invalid", BadInput, "BigQuery refuses the query or the filter (No); correct it"),
            (503, "backendError", Unavailable, "try again later"),
        ],
    )
    def test_what_the_service_refuses_is_said_in_a_sentence(self, service, status, reason, kind, said):
        """The bodies are those of https://cloud.google.com/bigquery/docs/error-messages."""
        errors = [{"domain": "global", "reason": reason, "message": "No."}]
        service.status, service.answer = status, {"error": {"code": status, "message": "No.", "errors": errors}}
        sentence = refusal(self.SOURCE, kind)
        assert said in sentence
        assert sentence.startswith(self.SOURCE)

    def test_a_query_that_is_too_expensive_is_refused(self, service):
        """A job that failed is an answer without error status; its reasons are in its state."""
        fault = {"reason": "bytesBilledLimitExceeded", "message": "Query exceeded limit for bytes billed: 10."}
        service.answer = {
            "jobReference": {"projectId": "ours", "jobId": "1", "location": "US"},
            "status": {"state": "DONE", "errorResult": fault, "errors": [fault]},
            "statistics": {"query": {"totalBytesProcessed": "2000000000"}},
            "configuration": {"query": {"query": "SELECT 1"}},
        }
        sentence = refusal("bigquery://?max_bytes_billed=10&query=SELECT 1")
        assert "is more expensive than max_bytes_billed (Query exceeded limit for bytes billed: 10)" in sentence

    def test_a_service_that_is_away_can_be_asked_again(self, monkeypatch):
        monkeypatch.setattr(bigquery, "RETRY_SECONDS", 0.5)
        addresses(monkeypatch, *free_ports(2))
        assert "try again later" in refusal(self.SOURCE, Unavailable)

    def test_rows_that_still_arrive_by_streaming_leave_no_fingerprint(self, service):
        assert Source.parse(self.SOURCE).fingerprint() is not None
        service.answer = TABLE | {"streamingBuffer": {"estimatedRows": "1", "estimatedBytes": "1"}}
        assert Source.parse(self.SOURCE).fingerprint() is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bigquery://", "names neither a table nor a query"),
        ("bigquery://posts", "does not name a table"),
        ("bigquery://a.b.c?query=SELECT 1", "does not name a table"),
        ("bigquery://a.b.c?limit=3", "has an option 'limit'"),
        ("bigquery://?max_bytes_billed=1e9&query=SELECT 1", "max_bytes_billed='1e9', which is not a whole number"),
        ("bigquery://?into=b&query=SELECT 1", "into='b', which is not project.dataset"),
        ("bigquery://?file=/nowhere/query.sql", "/nowhere/query.sql cannot be read"),
    ],
)
def test_a_malformed_source_is_refused_in_a_sentence(source, said):
    assert said in refusal(source)


def test_without_credentials_the_sentence_says_how_to_get_some(monkeypatch, tmp_path):
    for name in ("BIGQUERY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert "without credentials of Google: run gcloud auth" in refusal("bigquery://a.b.c")


class TestAllowed:
    def test_a_dataset_allows_its_tables_only(self):
        allowed = ["bigquery://ours.so"]
        assert checked("bigquery://ours.so.posts?where=a = 1", allowed)
        for other in ("bigquery://ours.sole.posts", "bigquery://ours", "bigquery://?query=SELECT 1"):
            with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
                checked(other, allowed)
        assert checked(r"bigquery://?query=SELECT '\n'", ["bigquery://"])

    def test_a_query_is_read_from_an_allowed_folder_only(self, tmp_path):
        (tmp_path / "query.sql").write_text("SELECT 1")
        allowed = ("bigquery://", str(tmp_path))
        source = f"bigquery://?file={tmp_path}/query.sql"
        assert bigquery.parse(source, allowed).query == "SELECT 1"
        with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
            bigquery.parse("bigquery://?file=/etc/passwd", allowed)


def test_a_sequential_split_is_warned_of(google, tmp_path, caplog):
    run = Run(Store(str(tmp_path)), "first")
    run.begin(Settings(source=fill(google, TINY)), CREATED)
    [warning] = run_stage("ingest", run)["warnings"]
    assert warning.startswith("bigquery://ours.so.posts has no order, so that split=sequential")
