"""Reads the posts of any source in blocks, and rejects rows that cannot be used."""

import gzip
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import progress
from pipeline.settings.deployment import MAX_SOURCE_BYTES
from pipeline.sources import formats, sample
from pipeline.sources.bigquery import parse as parse_bigquery
from pipeline.sources.bigquery_rows import bigquery_blocks
from pipeline.sources.blocks import REASONS, UTF8_BOM, Block, Columns, too_large
from pipeline.sources.csv_file import csv_blocks
from pipeline.sources.dump import dump_blocks
from pipeline.sources.formats import Format
from pipeline.sources.json_lines import json_blocks
from pipeline.sources.open import bounded, explained, on_disk, opened
from pipeline.sources.parquet_file import parquet_blocks
from pipeline.sources.rows import Rows, decoded_block
from pipeline.sources.source import Kind, Source
from pipeline.sources.text_columns import DECODED

__all__ = ["REASONS", "Block", "joined", "read"]

TEXT_READERS = {Format.CSV: csv_blocks, Format.JSON_LINES: json_blocks, Format.DUMP: dump_blocks}

log = logging.getLogger(__name__)


def read(
    source: Source,
    *,
    text_column: str,
    tag_column: str | None,
    keep: frozenset[str] = frozenset(),
    several: bool = False,
    max_bytes: int = MAX_SOURCE_BYTES,
    track: progress.Track = progress.log_lines,
) -> Iterator[Block]:
    """Read all rows in order, numbered from 1, in blocks of at most ROWS_PER_BLOCK rows and about 32 MB of text.

    A tag column holds what pipeline.data.several_tags says, in every format. A post with several tags is rejected. With
    tags to `keep`, posts that have none of them, or several, are left out instead, and the others have that one. If a
    post may have `several` tags, its tag is all of them, or those to keep, in one form as a text; only a post that has
    none is left out. Warnings are logged as they come.

    Raises BadInput for a source that is damaged, not allowed, or larger, unpacked, than `max_bytes`; Unavailable
    where a retry can succeed.
    """
    columns = Columns(text_column, tag_column, *((keep, several) if tag_column else ()))
    if source.synthetic:
        blocks = _synthetic(source, columns, max_bytes)
    elif source.kind is Kind.BIGQUERY:
        blocks = bigquery_blocks(parse_bigquery(source.place, source.allowed), source.display, columns, max_bytes)
    elif source.kind is Kind.FILES:
        blocks = _files(source, columns, max_bytes, track)
    else:
        blocks = _file(source, columns, max_bytes, track)
    logged = set[str]()
    for block in blocks:
        for warning in block.warnings:
            if warning not in logged:
                log.warning("warning: %s", warning)
        logged.update(block.warnings)
        yield block


def _file(source: Source, columns: Columns, max_bytes: int, track: progress.Track) -> Iterator[Block]:
    with explained(source.display), opened(source, max_bytes, track) as file:
        yield from _blocks(file, source.display, columns, max_bytes)


def _files(source: Source, columns: Columns, max_bytes: int, track: progress.Track) -> Iterator[Block]:
    """Read the files one after the other, with rows numbered through all of them."""
    room = max_bytes
    with explained(source.display):
        files, warnings = source.listing()
    if warnings:
        yield Rows().block(warnings)
    for block in joined(_file(each, columns, max_bytes, track) for each in files):
        room -= block.posts.nbytes + block.rejected.nbytes
        if room < 0:
            raise too_large(source.display, max_bytes)
        yield block


def joined(parts: Iterable[Iterator[Block]]) -> Iterator[Block]:
    """The blocks of several readings, one after the other, with their rows numbered through."""
    before = 0
    for part in parts:
        last = before
        for block in part:
            shifted = replace(block, posts=_shifted(block.posts, before), rejected=_shifted(block.rejected, before))
            last = max([last, *(pc.max(rows.column("row")).as_py() or 0 for rows in (shifted.posts, shifted.rejected))])
            yield shifted
        before = last


def _shifted(rows: pa.RecordBatch, before: int) -> pa.RecordBatch:
    """The rows with numbers that continue those of the files before."""
    place = rows.schema.get_field_index("row")
    return rows.set_column(place, rows.schema.field(place), pc.add(rows.column(place), before))


def _synthetic(source: Source, columns: Columns, max_bytes: int) -> Iterator[Block]:
    asked = sample.parse(source.place)
    if asked.rows * sample.BYTES_PER_POST > max_bytes:
        raise too_large(source.display, max_bytes)
    for batch in sample.blocks(*asked):
        undecodable = pa.repeat(False, batch.num_rows)
        decoded = pa.record_batch([batch.column("post"), batch.column("tag"), undecodable], schema=DECODED)
        yield decoded_block(decoded, batch.column("row")[0].as_py(), columns)


def _blocks(file: io.BufferedReader, name: str, columns: Columns, max_bytes: int) -> Iterator[Block]:
    """Recognize the format by the content, and read it; BadInput for a format that is not read."""
    head = file.peek(1)
    formats.check(head, name)
    if formats.is_parquet(head):
        with on_disk(file, name, max_bytes) as local:
            yield from parquet_blocks(local, name, columns, max_bytes)
        return
    file = bounded(file, name, max_bytes)
    if formats.is_gzip(head):
        file = bounded(gzip.GzipFile(fileobj=file), name, max_bytes)
        formats.check(file.peek(1), name, unpacked=True)
    read_text = TEXT_READERS[formats.text_format(file.peek(1), name, columns)]
    if file.peek(1).startswith(UTF8_BOM):
        file.read(len(UTF8_BOM))
    yield from read_text(file, name, columns)
