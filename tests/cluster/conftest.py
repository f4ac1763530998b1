"""A cluster for the tests: its own databases, Airflow's parts and two workers, started here and ended afterwards."""

import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import celery
import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.compose import FOLDER, secrets_of
from tests.conftest import programs
from tests.dags.conftest import DAG_ID, free_ports

WORKERS = ("worker-1", "worker-2")
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
ONCE = ("bucket", "migrate")
MODELS, SERVE = "models", "serve"

ALONE = ["--skip-serve-logs"]
"""Airflow serves logs on all interfaces; here nobody asks for them."""

HOMES = {"AIRFLOW__CORE__HOSTNAME_CALLABLE": "os.getcwd"}
"""Two workers on one machine have one host name; the folders they work in tell them apart."""


@pytest.fixture(scope="module")
def places(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster of which nothing runs yet but the S3 server."""
    folder = tmp_path_factory.mktemp("cluster")
    postgres, redis, api, serve = (f"127.0.0.1:{port}" for port in free_ports(4))
    addresses = {"postgres:5432": postgres, "redis:6379": redis, "api-server:8080": api, "127.0.0.1:8080": api}
    addresses |= {"http://s3:7070": s3["AWS_ENDPOINT_URL"], "localhost:8501": serve}
    return Cluster(folder, addresses, secrets_of(folder / "env"))


@pytest.fixture(scope="module")
def databases(places: Cluster) -> Iterator[Cluster]:
    """PostgreSQL and Redis that nothing else uses; a newcomer's own are left alone."""
    found = programs("initdb", "postgres", "psql", "redis-server")
    with tempfile.TemporaryDirectory(prefix="tagger-postgres-") as folder:  # pytest's own only its user may enter
        try:
            start_postgres(places, found, Path(folder))
            start_redis(places, found)
            yield places
        finally:
            places.end()


def start_postgres(cluster: Cluster, found: dict[str, str], data: Path) -> None:
    """As the user nobody where this process is root's: PostgreSQL refuses to be root's."""
    who = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    host, port = cluster.addresses["postgres:5432"].split(":")
    variables = cluster.environment("postgres", "postgres")
    variables |= {"PGHOST": host, "PGPORT": port, "PGPASSWORD": variables["POSTGRES_PASSWORD"]}
    make = '"$0" -D . --username=postgres --auth=scram-sha-256 --no-sync --pwfile=<(echo "$POSTGRES_PASSWORD")'
    cluster.spawn("initdb", ["bash", "-c", make, found["initdb"]], data, variables, **who)
    cluster.finish("initdb")
    server = [found["postgres"], "-D", ".", "-h", host, "-p", port, "-k", "", "-F"]
    cluster.spawn("postgres", server, data, variables, **who)

    def answers() -> bool:
        ask = [found["psql"], "--username=postgres", "--command=SELECT 1"]
        return subprocess.run(ask, env=variables, cwd=data, capture_output=True, check=False).returncode == 0

    cluster.wait("PostgreSQL answers", answers, 60)
    subprocess.run([FOLDER / "databases.sh"], env=variables, cwd=data, check=True)


def start_redis(cluster: Cluster, found: dict[str, str]) -> None:
    host, port = cluster.addresses["redis:6379"].split(":")
    home = cluster.folder / "redis"
    home.mkdir()
    _, *options = cluster.command("redis", "redis")
    command = [found["redis-server"], *options, "--bind", host, "--port", port]
    cluster.spawn("redis", command, home, cluster.environment("redis", "redis"))


@pytest.fixture(scope="module")
def cluster(databases: Cluster) -> Cluster:
    """Every service that is ours, ready, and the administrator logged in."""
    cluster = databases
    for up in ("first", "second"):  # compose starts them at every `up`
        for part in ONCE:
            cluster.start(part, f"{part}-{up}")
        for part in ONCE:
            cluster.finish(f"{part}-{up}")
    cluster.start(MODELS)
    host, port = cluster.addresses["localhost:8501"].split(":")
    cluster.start(SERVE, options=["--host", host, "--port", port, "--grpc-port", "0"])
    for part in PARTS:
        cluster.start(part, options=ALONE if part == "triggerer" else [])
    for worker in WORKERS:
        cluster.start("worker", worker, [*ALONE, "--celery-hostname", worker], **HOMES)
    cluster.api.base_url = f"http://{cluster.addresses['api-server:8080']}"
    cluster.wait("Airflow's parts are healthy", lambda: healthy(cluster), 180)
    log_in(cluster)
    cluster.wait("the DAG is listed", lambda: cluster.api.get(f"/dags/{DAG_ID}").is_success, 90)
    queue = celery.Celery(broker=cluster.environment("worker", WORKERS[0])["AIRFLOW__CELERY__BROKER_URL"])
    cluster.wait("both workers answer", lambda: len(queue.control.ping(timeout=2)) == len(WORKERS), 90)
    queue.close()
    return cluster


def healthy(cluster: Cluster) -> bool:
    try:
        health = cluster.api.get("/api/v2/monitor/health")
    except httpx.TransportError:
        return False
    return health.is_success and all(part["status"] == "healthy" for part in health.json().values())


def log_in(cluster: Cluster) -> None:
    passwords = cluster.folder / "api-server" / "auth" / "passwords.json"
    [(user, password)] = json.loads(passwords.read_text()).items()
    token = cluster.api.post("/auth/token", json={"username": user, "password": password}).json()["access_token"]
    cluster.api.headers["Authorization"] = f"Bearer {token}"
    cluster.api.base_url = cluster.api.base_url.join("/api/v2")
