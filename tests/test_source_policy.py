"""The sources that Airflow's trigger form accepts, and the addresses that a download may connect to."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import pytest

from pipeline.errors import BadInput, Unavailable
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment, Settings, from_form
from pipeline.source_policy import checked, reachable, refuse_secrets
from pipeline.sources import reader
from pipeline.sources.source import Source
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY, files_of, write_csv

ARTICLE = "https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv"
URLS = ("sample://", ARTICLE, "http://[2001:4860::8]:8080/v", "s3://ours/posts", "http://10.1.2.3:8000/posts/")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The allowed folder with a file, a file next to the folder, and links between them."""
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    write_csv(folder / "posts.csv", TINY)
    write_csv(tmp_path / "private.csv", TINY)
    (tmp_path / "data-of-others").mkdir()
    write_csv(tmp_path / "data-of-others" / "posts.csv", TINY)
    (folder / "link.csv").symlink_to(tmp_path / "private.csv")
    (folder / "up").symlink_to(tmp_path)
    (folder / "alias.csv").symlink_to(folder / "posts.csv")
    return folder


def refusal(source: str, *allowed: str) -> str:
    with pytest.raises(BadInput) as caught:
        checked(source, allowed)
    return str(caught.value)


NOT_OURS = """
ftp://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
http://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://storage.googleapis.com:8443/tensorflow-workshop-examples/stack-overflow-data.csv
https://storage.googleapis.com.evil.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://evil.com/storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://evil.com/?https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://evil.com/#https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv.evil
https://storage.googleapis.com/tensorflow-workshop-examples-evil/stack-overflow-data.csv
https://storage.googleapis.com/tensorflow-workshop-examples
https://storage.googleapis.com
https://storage%2egoogleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://ｓtorage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https://xn--storage-googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv
https:///tensorflow-workshop-examples/stack-overflow-data.csv
https://[::1
http://169.254.169.254/latest/meta-data/
http://metadata.google.internal/computeMetadata/v1/
http://[::1]/
http://[::ffff:127.0.0.1]/
http://localhost/
http://127.0.0.1:8080/
http://2130706433/
http://0x7f.1/
http://0177.0.0.1/
http://0/
http://10.1.2.3/posts/
http://10.1.2.3:8000/posts-of-others/
http://10.1.2.3:8001/posts/
s3://other/posts/a.csv
s3://ours
s3://ours/posts-of-others/a.csv
S3://ours/posts/a.csv
s3a://ours/posts/a.csv
memory://posts.csv
data:,post
sftp://ours/posts/a.csv
github://user:repo@main/posts.csv
samples://posts
SAMPLE://posts
file:posts.csv
FILE:///etc/passwd
"""


@pytest.mark.parametrize("source", NOT_OURS.split())
def test_a_source_that_is_not_on_the_list_is_refused(source, data):
    assert refusal(source, *URLS, str(data)).count("\n") == 0


ALLOWED_HOST = "https://storage.googleapis.com"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("https://storage.googleapis.com@evil.com/a.csv", "a user before its host"),
        ("https://evil.com@storage.googleapis.com/a.csv", "a user before its host"),
        ("https://storage.googleapis.com\\@evil.com/a.csv", "a backslash"),
        ("https://evil.com\\.storage.googleapis.com/a.csv", "a backslash"),
        (f"{ALLOWED_HOST}/a\\..\\..\\b.csv", "a backslash"),
        (f"{ARTICLE}/../../secret.csv", "'.' or '..' in its path"),
        (f"{ARTICLE}/..", "'.' or '..' in its path"),
        (f"{ARTICLE}/..;/secret.csv", "'.' or '..' in its path"),
        (f"{ARTICLE}/%2e%2e/secret.csv", "an encoded dot"),
        (f"{ARTICLE}/.%2E/secret.csv", "an encoded dot"),
        (f"{ARTICLE}/%252e%252e/secret.csv", "an encoded dot"),
        (f"{ARTICLE}/..%2fsecret.csv", "an encoded dot"),
        (f"{ARTICLE}/%5c..%5csecret.csv", "an encoded dot"),
        ("s3://ours/posts/../private/a.csv", "'.' or '..' in its path"),
        (f"simplecache::{ARTICLE}", "one URL within another"),
        ("simplecache::http://169.254.169.254/", "one URL within another"),
        ("simplecache::/etc/passwd", "one URL within another"),
        ("zip://a.csv::file:///etc/passwd", "one URL within another"),
        (f" {ARTICLE}", "invisible characters"),
        (f"{ARTICLE}\n", "invisible characters"),
        ("\thttp://169.254.169.254/", "invisible characters"),
        ("https://storage.goo\u200bgleapis.com/a.csv", "invisible characters"),
        ("posts.csv\x00.png", "invisible characters"),
    ],
)
def test_an_ambiguous_source_is_refused_even_below_an_allowed_url(source, why, data):
    sentence = refusal(source, "https://", "s3://", ARTICLE, *URLS, "/")
    assert why in sentence
    assert sentence.isprintable()


PATHS = """
/etc/passwd
file:///etc/passwd
local:///etc/passwd
file://localhost/etc/passwd
file://etc/passwd
file://{data}/../private.csv
{data}/../private.csv
{data}/../../../../../../etc/passwd
{data}/more/../../private.csv
{data}/link.csv
file://{data}/link.csv
{data}/up/private.csv
{data}/up/data-of-others/posts.csv
{data}-of-others/posts.csv
{data}/missing/../../private.csv
~/.ssh/id_rsa
~root/.bashrc
../private.csv
data/../etc
/proc/self/environ
//etc/passwd
"""


@pytest.mark.parametrize("path", PATHS.split())
def test_a_file_outside_the_folder_is_refused_however_it_is_reached(path, data):
    source = path.format(data=data)
    assert f"put the file in {data}, or ask the operator to add it to TAGGER_ALLOWED_SOURCES" in refusal(
        source, "sample://", str(data)
    )
    with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
        list(reader.read(Source.parse(source, ("sample://", str(data))), text_column="post", tag_column="tags"))


@pytest.mark.parametrize(
    "source",
    [
        "sample://posts?rows=10&seed=1",
        ARTICLE,
        f"{ARTICLE}?alt=media#top",
        ARTICLE.replace("https://storage", "HTTPS://Storage"),
        ARTICLE.replace(".com/", ".com:443/"),
        ARTICLE.replace(".com/", ".com./"),
        "http://10.1.2.3:8000/posts/2026/a.csv",
        "http://[2001:4860::8]:8080/v/a.csv",
        "s3://ours/posts",
        "s3://ours/posts/a b..csv",
    ],
)
def test_a_source_on_the_list_is_read_unchanged(source, data):
    assert checked(source, [*URLS, str(data)]) == source


@pytest.mark.parametrize("name", ["posts.csv", "alias.csv", "up/data/posts.csv", "more/../posts.csv", "./posts.csv"])
def test_a_file_in_the_folder_is_read_by_its_real_path(name, data):
    real = str((data / "posts.csv").resolve())
    for source in (f"{data}/{name}", f"file://{data}/{name}"):
        assert checked(source, [str(data)]) == checked(source, [f"file://{data}/"]) == real
        (block,) = reader.read(Source.parse(source, (str(data),)), text_column="post", tag_column="tags")
        assert block.posts.num_rows == len(TINY)


def test_a_scheme_alone_allows_every_host_of_it_and_no_other():
    assert checked("https://any.example/x", ["https://"]) == "https://any.example/x"
    assert "not one that Airflow's runs may read" in refusal("http://any.example/x", "https://")
    assert "not one that Airflow's runs may read" in refusal("https:///x", "https://")
    assert checked("/etc/passwd", ["/"]) == "/etc/passwd"


INNER = """
127.0.0.1 127.8.9.1 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 192.0.0.192
168.63.129.16 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
::1 :: ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1:: 2001::1
fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 100::1
"""


@pytest.mark.parametrize("address", INNER.split())
def test_internal_addresses_are_not_reachable(address):
    assert not reachable(address, 443, ["https://", "http://", "http://10.1.2.3:443/"])


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_reachable(address):
    assert reachable(address, 443, [])


def test_an_allowed_address_is_reachable_on_its_port():
    assert reachable("10.1.2.3", 8000, URLS)
    assert not reachable("10.1.2.3", 80, URLS)
    assert reachable("::1", 80, ["http://[::1]/x"])


class Server:
    """An HTTP server on this machine that records the Host headers of its requests; `to` maps paths to redirects."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, body: bytes = b"post,tags\nhow,c#\n") -> None:
        self.hosts = list[str]()
        self.to = dict[str, str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.hosts.append(self.headers["Host"])
                place = outer.to.get(self.path)
                self.send_response(302 if place else 200)
                if place:
                    self.send_header("Location", place)
                self.send_header("Content-Length", str(0 if place else len(body)))
                self.end_headers()
                self.wfile.write(b"" if place else body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer((address, port), Handler)
        self.port = self.http.server_port
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = list[Server]()

    def start(*arguments: object) -> Server:
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def fetch(url: str, *allowed: str) -> list[str]:
    blocks = reader.read(Source.parse(url, allowed), text_column="post", tag_column="tags")
    return [post for block in blocks for post in block.posts.column("post").to_pylist()]


def fetch_refused(url: str, *allowed: str) -> str:
    with pytest.raises(BadInput) as caught:
        fetch(url, *allowed)
    return str(caught.value)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make a name resolve to the given addresses, one a call and the last one from then on; returns the look-ups."""

    def answer(name: str, *addresses: str) -> list[str]:
        left, asked, real = list(addresses), list[str](), socket.getaddrinfo

        def getaddrinfo(host, port, *rest, **named):
            if host != name:
                return real(host, port, *rest, **named)
            asked.append(host)
            return real(left.pop(0) if len(left) > 1 else left[0], port, *rest, **named)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return answer


def test_a_private_host_is_fetched_from_where_its_address_is_named(serve):
    server = serve()
    assert fetch(f"{server.url}/a.csv", server.url) == ["how"]
    assert server.hosts == [f"127.0.0.1:{server.port}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.1", "0", "[::ffff:7f00:1]"])
def test_a_private_address_in_any_spelling_is_not_connected_to(host, serve):
    server = serve()
    sentence = fetch_refused(f"http://{host}:{server.port}/", "http://")
    assert "is refused because its IP address is not a public one" in sentence
    assert server.hosts == []


def test_a_public_name_with_a_private_address_is_not_connected_to(serve, resolver):
    server = serve()
    resolver("posts.example", "127.0.0.1")
    url = f"http://posts.example:{server.port}/"
    assert "posts.example is refused because its IP address" in fetch_refused(url, url)
    assert server.hosts == []


def test_the_connection_goes_to_the_address_that_was_checked(serve, resolver):
    """If the name were resolved twice, the second answer would lead to another server."""
    server = serve()
    other = serve("127.0.0.2", server.port, b"post,tags\nstolen,c#\n")
    asked = resolver("posts.example", "127.0.0.1", "127.0.0.2")
    url = f"http://posts.example:{server.port}/"
    assert fetch(url, url, server.url) == ["how"]
    assert (server.hosts, other.hosts, asked) == ([f"posts.example:{server.port}"], [], ["posts.example"])


def test_an_address_that_turns_private_later_is_checked_at_each_connection(serve, resolver):
    server = serve()
    server.to["/a"] = "/b"
    asked = resolver("posts.example", "127.0.0.1", "127.0.0.2")
    url = f"http://posts.example:{server.port}/"
    assert "its IP address is not a public one" in fetch_refused(f"{url}a", url, server.url)
    assert (server.hosts, len(asked)) == ([f"posts.example:{server.port}"], 2)


def test_the_certificate_is_checked_for_the_name_not_the_address(serve, resolver, monkeypatch):
    server = serve()
    resolver("posts.example", "127.0.0.1")
    names = []
    monkeypatch.setattr(
        httpcore._backends.sync.SyncStream,
        "start_tls",
        lambda self, **named: names.append((named["ssl_context"].check_hostname, named["server_hostname"])) or self,
    )
    url = f"https://posts.example:{server.port}/"
    assert fetch(url, url, f"https://127.0.0.1:{server.port}/") == ["how"]
    assert names == [(True, "posts.example")]


def test_a_name_without_an_address_may_have_one_later(resolver, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match="Name or service not known"):
        fetch("https://posts.example/", "https://posts.example/")


def test_the_next_address_is_tried_where_one_does_not_answer(serve, monkeypatch):
    server, real = serve(), socket.getaddrinfo

    def two(host, port, *rest, **named):
        if host != "posts.example":
            return real(host, port, *rest, **named)
        return real("127.0.0.9", port, *rest, **named) + real("127.0.0.1", port, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    url = f"http://posts.example:{server.port}/"
    assert fetch(url, url, server.url, f"http://127.0.0.9:{server.port}") == ["how"]
    assert "its IP address is not a public one" in fetch_refused(url, url, server.url)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("http://127.0.0.1:{other}/", "is not one that Airflow's runs may read"),
        ("//127.0.0.1:{other}/", "is not one that Airflow's runs may read"),
        ("http://169.254.169.254/latest/", "is not one that Airflow's runs may read"),
        ("/private/a.csv", "is not one that Airflow's runs may read"),
        ("../private/a.csv", "is not one that Airflow's runs may read"),
        ("/posts/%2e%2e/private/a.csv", "an encoded dot"),
        ("http://user@127.0.0.1:{own}/posts/b.csv", "a user before its host"),
        ("file:///etc/passwd", "is not one that Airflow's runs may read"),
        ("file://{data}/posts.csv", "is not one that Airflow's runs may read"),
        ("ftp://127.0.0.1/posts.csv", "is not one that Airflow's runs may read"),
        ("sample://posts", "cannot be fetched (UnsupportedProtocol)"),
    ],
)
def test_a_redirect_to_a_source_that_is_not_allowed_is_refused(location, sentence, serve, data):
    server, other = serve(), serve()
    server.to["/posts/a.csv"] = location.format(own=server.port, other=other.port, data=data)
    told = fetch_refused(f"{server.url}/posts/a.csv", f"{server.url}/posts", "sample://", str(data))
    assert sentence in told
    assert (len(server.hosts), other.hosts) == (1, [])


def test_a_redirect_to_a_private_address_is_not_connected_to_even_where_every_host_is_allowed(serve):
    server, other = serve(), serve()
    server.to["/"] = other.url
    assert "its IP address is not a public one" in fetch_refused(f"{server.url}/", server.url, "http://")
    assert other.hosts == []


def test_a_redirect_to_an_allowed_url_is_followed(serve):
    server = serve()
    server.to["/posts/a.csv"] = "b.csv?signature=x"
    assert fetch(f"{server.url}/posts/a.csv", f"{server.url}/posts") == ["how"]


def test_no_proxy_is_used_because_it_would_resolve_the_name_again(serve, monkeypatch):
    server, proxy = serve(), serve()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch(f"{server.url}/", server.url) == ["how"]
    assert proxy.hosts == []


def test_the_command_line_is_not_limited(serve):
    server = serve()
    server.to["/"] = f"{serve().url}/"
    (block,) = reader.read(Source.parse(f"{server.url}/"), text_column="post", tag_column="tags")
    assert block.posts.num_rows == 1


class TestRuns:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch) -> tuple[Settings, Deployment]:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
        return Settings(source=str(tmp_path / "operators.csv")), Deployment(store=str(tmp_path / "store"))

    def begin(self, here, params, identifier=None) -> Run:
        """As the DAG begins a run."""
        settings, deployment = here
        run = Run(Store(deployment.store), "a")
        chosen, restricted = from_form(settings, params)
        run.begin(chosen, CREATED, identifier, deployment=deployment, restricted=restricted)
        return run

    def test_the_list_is_of_the_installation_and_its_folders_are_in_airflow_home(self, here, data, tmp_path):
        run = self.begin(here, {"source": str(data / "posts.csv")})
        assert run.existing().allowed == ("sample://", ARTICLE, str(tmp_path / "data"))

    def test_the_form_decides_nothing_of_the_installation(self, here):
        sent = {"source": "x", "epochs": 7, "allowed_sources": "/", "store": "/", "schedule": None, "keep_versions": 0}
        assert from_form(here[0], sent) == (Settings(source="x", epochs=7), True)

    def test_the_installations_own_source_is_not_restricted(self, here):
        own = here[0].source
        assert from_form(here[0], {"source": own, "epochs": 3}) == (Settings(source=own, epochs=3), False)
        assert from_form(here[0], {}) == (here[0], False)

    def test_a_forbidden_source_begins_no_run(self, here, tmp_path):
        with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
            self.begin(here, {"source": "/etc/passwd"})
        assert not (tmp_path / "store").exists()

    def test_ingest_checks_the_list_again_after_the_file_became_a_link(self, here, data, tmp_path):
        run = self.begin(here, {"source": str(data / "posts.csv")})
        assert json.loads((tmp_path / "store" / "runs" / "a" / "run.json").read_text())["restricted"] is True
        (data / "posts.csv").unlink()
        (data / "posts.csv").symlink_to(tmp_path / "private.csv")
        with pytest.raises(BadInput, match="is not one that Airflow's runs may read"):
            run_stage("ingest", run)
        run = self.begin(here, {"source": str(data / "more" / "new.csv")})
        write_csv(data / "more" / "new.csv", TINY)
        assert run_stage("ingest", run)["posts"] == len(TINY)

    def test_the_command_line_may_continue_a_run_of_airflow_with_any_source(self, here, data):
        run = self.begin(here, {"source": str(data / "posts.csv")}, "a")
        run.begin(Settings(source=str(data.parent / "private.csv")), CREATED)
        assert run.existing().allowed is None
        assert run_stage("ingest", run)["posts"] == len(TINY)


PLANTED = "hunter2"


@pytest.mark.parametrize(
    "source",
    [
        f"https://user:{PLANTED}@127.0.0.1:9/posts.csv?token={PLANTED}",
        f"https://127.0.0.1:9/posts.csv?a=b&access_token={PLANTED}",
        f"https://127.0.0.1:9/posts.csv?X-Amz-Signature={PLANTED}",
        f"https://127.0.0.1:9/posts.csv?sig={PLANTED}",
        f"https://{PLANTED}@127.0.0.1:9/posts.csv",
        f"s3://key:{PLANTED}@bucket/posts.csv",
        f"simplecache::s3://key:{PLANTED}@bucket/posts.csv",
        f"ftp://user:p@{PLANTED}@127.0.0.1/posts.csv",
    ],
)
def test_a_secret_in_a_source_is_stored_nowhere(source, tmp_path, monkeypatch, capfd, caplog):
    """Neither in the store nor in anything printed or logged: by the command line, by a variable, by a trigger."""
    from pipeline import cli

    store = tmp_path / "store"
    told = []
    for arguments, variables in [
        (["run", "--source", source], {}),
        (["run", "--source", source, "--debug"], {}),
        (["run"], {"TAGGER_SOURCE": source}),
        (["runs"], {"TAGGER_ALLOWED_SOURCES": f"sample://,{source}"}),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["tagger", *arguments, "--store", str(store)])
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert ended.value.code == 2
            told.append("".join(capfd.readouterr()))
    chosen, restricted = from_form(Settings(), {"source": source})
    with pytest.raises(BadInput) as caught:
        Run(Store(str(store)), "b").begin(chosen, CREATED, restricted=restricted)
    for text in (*told, str(caught.value)):
        assert "environment variables" in text
        assert PLANTED not in text
    assert PLANTED not in caplog.text
    assert not any(PLANTED.encode() in content for content in files_of(tmp_path).values())


@pytest.mark.parametrize(
    "source",
    [
        "posts?token=1.csv",
        "/data/a:b@c/posts.csv",
        "https://h/a@b/posts.csv?download=1",
        "s3://bucket/a:b@c.csv?versionId=1",
        "abfs://container@account.dfs.core.windows.net/posts.csv",
        "sample://posts?rows=5&seed=1",
    ],
)
def test_a_source_without_secrets_is_accepted(source):
    refuse_secrets(source)
