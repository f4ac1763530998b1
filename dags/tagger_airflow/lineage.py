"""Tells OpenLineage, where its provider is installed, what each stage read and wrote in the store."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from pipeline.settings import Deployment
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.manifest import Manifest
from pipeline.store.runs import Run
from tagger_airflow.store import run_of

Lineage = Callable[[Any], Any]


def lineage_of(stage: Stage, deployment: Deployment) -> Lineage:
    """Make what OpenLineage's provider calls after the task, with the task instance: it returns inputs and outputs.

    Each stage's result is a dataset, named by its address in the store, with its rows, bytes and files, and the schema
    of its Parquet files. The stages' inputs are the results of earlier stages; that of the first is the source.
    """

    def found(instance: Any) -> Any:
        # Not at the top: the provider is an extra, and only it calls this.
        from airflow.providers.openlineage.extractors import OperatorLineage

        date = instance.get_template_context().get("logical_date")
        run = run_of(deployment, instance.run_id, date)
        manifests = run.manifests()
        made = manifests.get(stage.name)
        inputs = [_dataset(run, manifests[name]) for name in STAGES if made and name in made.inputs]
        return OperatorLineage(
            inputs=inputs if stage.needs else [_source(run)],
            outputs=[_dataset(run, made, output=True)] if made else [],
        )

    return found


def address(url: str) -> tuple[str, str]:
    """OpenLineage's name of a place, as namespace and name: ("s3://bucket", "path"), or ("file", "/path")."""
    parts = urlsplit(url)
    if "://" not in url or parts.scheme == "file":
        return "file", parts.path if "://" in url else url
    rest = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", (parts.path.lstrip("/") + rest) or "/"


def _source(run: Run) -> Any:
    from openlineage.client.event_v2 import InputDataset

    namespace, name = address(run.existing().settings.source)
    return InputDataset(namespace=namespace, name=name)


def _dataset(run: Run, manifest: Manifest, *, output: bool = False) -> Any:
    """What a stage left, as a dataset; of the run that made it, also where the result came from the cache."""
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import (
        documentation_dataset,
        input_statistics_input_dataset,
        output_statistics_output_dataset,
    )

    namespace, name = address(run.store.display_path(manifest.path))
    rows, size = manifest.summary.get("rows"), sum(entry.bytes for entry in manifest.files.values())
    facets = {
        "documentation": documentation_dataset.DocumentationDatasetFacet(
            description=f"{manifest.stage} of run {manifest.run}: {STAGES[manifest.stage].does}"
        )
    } | _schema(run, manifest)
    counts: dict[str, Any] = {"rowCount": rows, "size": size, "fileCount": len(manifest.files)}
    if output:
        statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(**counts)
        return OutputDataset(namespace, name, {"outputStatistics": statistics}, facets=facets)
    read = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(**counts)
    return InputDataset(namespace, name, {"inputStatistics": read}, facets=facets)


def _schema(run: Run, manifest: Manifest) -> dict[str, Any]:
    """The columns of the stage's Parquet files; empty where it leaves no tables of posts."""
    import pyarrow.parquet as pq
    from openlineage.client.facet_v2 import schema_dataset

    from pipeline.data.learned import FILE

    others = ("rejected/", "assets", FILE)
    tables = [name for name in sorted(manifest.files) if name.endswith(".parquet") and not name.startswith(others)]
    if not tables:
        return {}
    path = run.store.path(f"{manifest.path}/{tables[0]}")
    with run.store.fs.open(path) as file:
        columns = pq.read_schema(file)
    fields = [schema_dataset.SchemaDatasetFacetFields(name=each.name, type=str(each.type)) for each in columns]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}
