"""Uploads a published version to Vertex AI's model registry, with the contract by which it is asked there.

Vertex AI is the successor of Cloud ML Engine: https://cloud.google.com/vertex-ai/docs/model-registry/import-model.
"""

from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, needs_extra
from pipeline.files import scratch_folder
from pipeline.registry.card import MODEL, Card
from pipeline.registry.registry import Registry
from pipeline.sources.google_errors import VERTEX, explained

MODEL_ID = MODEL.replace("_", "-")
"""The model's id there: letters, digits and hyphens only."""

TENSORFLOW_SERVING = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
"""Google's own image, which serves a SavedModel."""

PORT, PREDICT, HEALTH = 8080, f"/v1/models/{MODEL}:predict", "/healthz"
"""Where `tagger serve` answers in an image of one's own; Vertex AI tells it in AIP_HTTP_PORT and so on."""

UPLOAD_SECONDS = 1800.0
"""Seconds within which an upload must be done."""


def upload(registry: Registry, version: int | None, project: str, location: str, image: str | None = None) -> str:
    """Upload a version (None: the live one) as a new version of the model, and return its name there.

    Without an image it is served by TensorFlow Serving, from the version's files; with one, which has this package, by
    `tagger serve`, which follows the store's live version. Raises BadInput where the store is not on Google Cloud
    Storage, and where the service refuses; CorruptArtifact where the version's files are damaged or not trusted.
    """
    card = registry.published(version)
    if not registry.store.url.startswith("gs://"):
        raise BadInput(
            f"Vertex AI reads models from Google Cloud Storage, and the store is {registry.store.url}: copy the store "
            "to a bucket, and name it as gs://BUCKET/PATH by --store"
        )
    with scratch_folder("upload") as scratch:
        registry.fetch(card.version, Path(scratch, str(card.version)))
    with explained(f"version {card.version}", VERTEX):
        types, client = _aiplatform(location)
        parent = f"projects/{project}/locations/{location}"
        known = _exists(client, f"{parent}/models/{MODEL_ID}")
        request = types.UploadModelRequest(
            parent=parent,
            model=_model(types, registry, card, image),
            **{"parent_model": f"{parent}/models/{MODEL_ID}"} if known else {"model_id": MODEL_ID},
        )
        done = client.upload_model(request=request).result(timeout=UPLOAD_SECONDS)
    return f"{done.model}@{done.model_version_id}"


def _model(types: Any, registry: Registry, card: Card, image: str | None) -> Any:
    container = types.ModelContainerSpec(image_uri=image or TENSORFLOW_SERVING)
    if image:
        container = types.ModelContainerSpec(
            image_uri=image,
            command=["tagger", "serve"],
            env=[types.EnvVar(name="TAGGER_STORE", value=registry.store.url)],
            ports=[types.Port(container_port=PORT)],
            predict_route=PREDICT,
            health_route=HEALTH,
        )
    return types.Model(
        display_name=MODEL,
        artifact_uri=f"{registry.store.url}/{card.path}",
        container_spec=container,
        version_description=f"run {card.run}, accuracy {card.accuracy:.4f}",
        version_aliases=[f"tagger-{card.version}"],
        labels={"tagger-version": str(card.version)},
    )


def _exists(client: Any, name: str) -> bool:
    from google.api_core.exceptions import NotFound

    try:
        client.get_model(name=name)
    except NotFound:
        return False
    return True


def _aiplatform(location: str) -> tuple[Any, Any]:
    """Google's package, and its client of the region; BadInput where the package is missing."""
    with needs_extra("vertex", "to upload to Vertex AI"):
        from google.cloud import aiplatform_v1
    options = {"api_endpoint": f"{location}-aiplatform.googleapis.com"}
    return aiplatform_v1, aiplatform_v1.ModelServiceClient(client_options=options)
