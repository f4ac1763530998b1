"""Sources in BigQuery: what their text asks for, Google's client, and how a change of a table is noticed.

A source is `bigquery://project.dataset.table`, with `?where=FILTER` if not all rows are wanted, or `bigquery://?query=SQL`,
or `bigquery://?file=PATH` of a file with the query. The last option is taken as it is written, to the end of the text.
Options of a query that may come before it: `into=project.dataset`, where its result is stored for a day instead of in
BigQuery's own temporary tables, and `max_bytes_billed=N`. Who asks, and whose project pays, say Google's own defaults
(https://cloud.google.com/docs/authentication/application-default-credentials).
"""

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, needs_extra
from pipeline.source_policy import BIGQUERY, checked

MAX_BYTES_BILLED = 100 * 2**30
"""Bytes that a query may be billed for, unless the source says another number: about those of the article's query."""

TABLE, DATASET = re.compile(r"[a-z][a-z0-9-]*\.\w+\.[\w-]+"), re.compile(r"[a-z][a-z0-9-]*\.\w+")
CHANGES = re.compile(r"\b(?:CURRENT_\w+|RAND|GENERATE_UUID|SESSION_USER|EXTERNAL_QUERY)\b", re.IGNORECASE)
"""Functions whose result differs from one time to the next, so that the same query has another result."""

REST, STORAGE = "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"
"""Environment variables that name an emulator's two addresses: http://host:port, and host:port."""

PURPOSE = "to read from BigQuery"

FORM = (
    "write bigquery://project.dataset.table, with ?where=FILTER if not all rows are wanted, or bigquery://?query=SQL, "
    "or bigquery://?file=PATH"
)

RETRY_SECONDS = 60.0
"""Seconds for which a request that fails is sent again; a task of Airflow is tried again later besides."""


@dataclass(frozen=True)
class Asked:
    """What a source asks for: a table with a filter, or a query."""

    table: str
    where: str
    query: str
    into: str
    max_bytes_billed: int


def parse(text: str, allowed: tuple[str, ...] | None) -> Asked:
    """Read the source's text; BadInput where it has another form, or where its file may not be read."""
    table, _, rest = text.removeprefix(BIGQUERY).partition("?")
    options: dict[str, str] = {}
    while rest:
        name, equals, value = rest.partition("=")
        if not equals or name in options or name not in ("where", "query", "file", "into", "max_bytes_billed"):
            raise _malformed(text, f"has an option {name[:40]!r}")
        value, rest = (value, "") if name in ("where", "query", "file") else value.partition("&")[::2]
        options[name] = value
    billed = options.get("max_bytes_billed", str(MAX_BYTES_BILLED))
    if not re.fullmatch("[0-9]{1,18}", billed):
        raise _malformed(text, f"has max_bytes_billed={billed[:40]!r}, which is not a whole number")
    if (into := options.get("into", "")) and not DATASET.fullmatch(into):
        raise _malformed(text, f"has into={into[:40]!r}, which is not project.dataset")
    if table:
        if not TABLE.fullmatch(table) or options.keys() - {"where"}:
            raise _malformed(text, "does not name a table")
        return Asked(table, options.get("where", ""), "", "", 0)
    query = _of_file(options["file"], allowed) if "file" in options else options.get("query", "")
    if not query.strip():
        raise _malformed(text, "names neither a table nor a query")
    return Asked("", "", query.strip().rstrip(";"), into, int(billed))


def _malformed(text: str, fault: str) -> BadInput:
    return BadInput(f"the source {text[:200]} {fault}: {FORM}")


def _of_file(path: str, allowed: tuple[str, ...] | None) -> str:
    try:
        return Path(path if allowed is None else checked(path, allowed)).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"the query's file {path[:200]} cannot be read ({error}): correct the source") from error


def fingerprint(asked: Asked) -> str | None:
    """An identifier of the rows, from what BigQuery says of the tables; None where a change would not show.

    It does not for views, for external tables, while rows arrive by streaming, and for a query that asks for the
    time or for random numbers.
    """
    client = client_of_google()
    tables = [asked.table]
    if asked.query:
        if CHANGES.search(asked.query):
            return None
        tables = [name_of(table) for table in dry_run(client, asked).referenced_tables]
    states = [_state(table_of(client, table)) for table in sorted(tables)]
    return None if None in states or not states else sha256(repr((asked, states)).encode()).hexdigest()


def _state(table: Any) -> tuple[Any, ...] | None:
    if table.table_type not in ("TABLE", "SNAPSHOT") or table.streaming_buffer is not None:
        return None
    return name_of(table), table.etag, str(table.modified), table.num_rows, table.num_bytes


def name_of(table: Any) -> str:
    """The table as project.dataset.table."""
    return f"{table.project}.{table.dataset_id}.{table.table_id}"


def dry_run(client: Any, asked: Asked) -> Any:
    """Ask what the query would read, without running it."""
    from google.cloud import bigquery

    dry = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
    return client.query(asked.query, job_config=dry, retry=bigquery.DEFAULT_RETRY.with_timeout(RETRY_SECONDS))


def table_of(client: Any, name: str) -> Any:
    """Ask for what BigQuery says of a table."""
    from google.cloud import bigquery

    return client.get_table(name, retry=bigquery.DEFAULT_RETRY.with_timeout(RETRY_SECONDS))


def client_of_google() -> Any:
    """Google's client for tables and queries; BadInput where its package, or who asks, is missing."""
    with needs_extra("bigquery", PURPOSE):
        from google.cloud import bigquery
    if host := os.environ.get(REST):
        from google.auth.credentials import AnonymousCredentials

        project = os.environ.get("GOOGLE_CLOUD_PROJECT", "test")
        options = {"api_endpoint": host}
        return bigquery.Client(project=project, credentials=AnonymousCredentials(), client_options=options)
    return bigquery.Client()
