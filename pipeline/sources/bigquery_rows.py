"""Reads posts from BigQuery: a table, or the result of a query, by several streams of its Storage Read API as Arrow."""

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pyarrow as pa

from pipeline.errors import BadInput, needs_extra
from pipeline.sources import text_columns
from pipeline.sources.bigquery import PURPOSE, STORAGE, Asked, client_of_google, dry_run, name_of, table_of
from pipeline.sources.blocks import Block, Columns, position, too_large
from pipeline.sources.google_errors import BIGQUERY, explained
from pipeline.sources.rows import decoded_block

STREAMS = 4
"""Streams that are read at once, if BigQuery offers as many."""

log = logging.getLogger(__name__)


def bigquery_blocks(asked: Asked, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """Read the rows, numbered from 1 as they arrive, in blocks of at most about 32 MB of text.

    Raises BadInput for what BigQuery refuses, and Unavailable where a retry can succeed.
    """
    row, room = 1, max_bytes
    with explained(name, BIGQUERY):
        client = client_of_google()
        table = table_of(client, _materialized(client, asked) if asked.query else asked.table)
        for batch in _batches(client.project, table, asked.where, _checked(table, name, columns)):
            for part in text_columns.halves(text_columns.decoded(batch, name, columns)):
                room -= part.nbytes
                if room < 0:
                    raise too_large(name, max_bytes)
                yield decoded_block(part, row, columns)
                row += part.num_rows


def _checked(table: Any, name: str, columns: Columns) -> list[str]:
    """List the columns to read; BadInput where one is missing or no text, or the table is a view."""
    if table.table_type in ("VIEW", "EXTERNAL"):
        raise BadInput(
            f"{name} is of type {table.table_type}, which cannot be read in streams: select its rows by a query, with "
            "bigquery://?query=SQL"
        )
    fields = {field.name: field for field in table.schema}
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        position(list(fields), column, name, setting)
        field = fields[column]
        repeated = field.mode == "REPEATED" and column != columns.tag
        if field.field_type != "STRING" or repeated:
            kind = f"ARRAY<{field.field_type}>" if field.mode == "REPEATED" else field.field_type
            raise BadInput(f"{name} has {kind} in column {column!r}, not STRING: set {setting} to a column of strings")
    return list(needed)


def _materialized(client: Any, asked: Asked) -> str:
    """Run the query, after saying how many bytes it reads, and name the table with its result."""
    from google.cloud import bigquery

    read = dry_run(client, asked).total_bytes_processed or 0
    log.info("the query reads %.2f GB, of %.2f GB that it may", read / 1e9, asked.max_bytes_billed / 1e9)
    limits = bigquery.QueryJobConfig(maximum_bytes_billed=asked.max_bytes_billed)
    if not asked.into:
        job = client.query(asked.query, job_config=limits)
        job.result()
        return name_of(job.destination)
    result = f"{asked.into}.tagger_{sha256(asked.query.encode()).hexdigest()[:16]}"
    expires = "OPTIONS(expiration_timestamp=TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 DAY))"
    statement = f"CREATE OR REPLACE TABLE `{result}` {expires} AS (\n{asked.query}\n)"
    client.query(statement, job_config=limits).result()
    return result


def _batches(project: str, table: Any, where: str, needed: list[str]) -> Iterator[pa.RecordBatch]:
    """Read the table's streams at once, one batch of each in turn, with at most one more of each in memory."""
    from google.cloud.bigquery_storage import types

    reads = _read_client()
    session = reads.create_read_session(
        parent=f"projects/{project}",
        read_session=types.ReadSession(
            table=table.reference.path.lstrip("/"),
            data_format=types.DataFormat.ARROW,
            read_options={"selected_fields": needed, "row_restriction": where},
        ),
        max_stream_count=STREAMS,
    )

    def pages(stream: str) -> Iterator[pa.RecordBatch]:
        return (page.to_arrow() for page in reads.read_rows(stream).rows(session).pages)

    streams = [pages(stream.name) for stream in session.streams]
    with ThreadPoolExecutor(max(1, len(streams))) as pool:
        ahead = deque((stream, pool.submit(next, stream, None)) for stream in streams)
        while ahead:
            stream, future = ahead.popleft()
            if (batch := future.result()) is not None:
                ahead.append((stream, pool.submit(next, stream, None)))
                yield batch


def _read_client() -> Any:
    """Google's client for reading in streams."""
    with needs_extra("bigquery", PURPOSE):
        from google.cloud import bigquery_storage
    if not (host := os.environ.get(STORAGE)):
        return bigquery_storage.BigQueryReadClient()
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    return bigquery_storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=grpc.insecure_channel(host)))
