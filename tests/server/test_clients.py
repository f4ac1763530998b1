"""The real clients of other servers, unmodified, call by call, each in an environment of its own: `make clients`.

TensorFlow Serving's own stubs are in this project's environment, and test_serve.py calls them.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.registry.registry import Registry
from tests.server.conftest import MODEL

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "clients"
PAGE = (ROOT / "docs" / "how-to" / "serve.md").read_text()
TEXTS = ["how do i center a div with css", "naïve 🙂 list in python"]
ALL = ("tag", "probability", "probabilities")
EXTENSIONS = ["binary_tensor_data", "classification"]

TAG, BY_NAME, NAMES = ("tag",), "the two most probable tags by name", "the outputs, with the tags' names"


class Error(str):
    """What the sentence of an error has in it."""


OTHER_MODEL = Error("there is no model 'other': the model is stackoverflow_tagger")
OTHER_VERSION = Error("version 7 is not loaded")
OTHER_OUTPUT = Error("there is no output 'other': the outputs are tag, probability, probabilities")
OTHER_SHAPE = Error("inputs[0].shape is [3], but inputs[0].data has 2 entries")

BOTH_OF_TRITON = {
    "is_server_live": True,
    "is_server_ready": True,
    "is_model_ready": True,
    "is_model_ready version": True,
    "infer": ALL,
    "infer column": ALL,
    "infer request_id": ALL,
    "infer model_version": ALL,
    "infer sequence": ALL,
    "infer priority": ALL,
    "infer other version": OTHER_VERSION,
    "infer other model": OTHER_MODEL,
    "infer two columns": Error("inputs[0].shape is [2, 2]: send [n], or [n, 1]"),
    "infer no posts": Error("inputs[0] is empty"),
    "infer class_count": BY_NAME,
    "infer other output": OTHER_OUTPUT,
    "get_server_metadata": EXTENSIONS,
}
KSERVE_INFER = {
    "list": ALL,
    "array": ALL,
    "array column": ALL,
    "binary": ALL,
    "binary column": ALL,
    "an output": TAG,
    "an output as binary": TAG,
    "by name": BY_NAME,
    "parameters": ALL,
    "other shape": OTHER_SHAPE,
    "other output": OTHER_OUTPUT,
}
EXPECTED = {
    "tritonclient": {f"{how} {name}": value for how in ("http", "grpc") for name, value in BOTH_OF_TRITON.items()}
    | {
        "http is_model_ready other": False,
        "http get_model_metadata": NAMES,
        "http get_model_config": Error("there is nothing at /v2/models/stackoverflow_tagger/config"),
        "http infer binary to binary": TAG,
        "http infer binary to JSON": TAG,
        "http infer JSON to binary": TAG,
        "http infer JSON to JSON": TAG,
        "http infer JSON column": ALL,
        "http infer gzip of binary": ALL,
        "http infer gzip of JSON": ALL,
        "http infer gzip back": ALL,
        "http infer deflate of binary": ALL,
        "http infer deflate of JSON": ALL,
        "http infer deflate back": ALL,
        "http infer class_count binary": BY_NAME,
        "http async_infer": ALL,
        "grpc is_model_ready other": OTHER_MODEL,
        "grpc get_model_metadata": list(ALL),
        "grpc get_model_config": Error("UNIMPLEMENTED"),
        "grpc infer compressed": ALL,
        "grpc infer an output": TAG,
    },
    "kserve": {f"{how} infer {name}": value for how in ("v2", "grpc") for name, value in KSERVE_INFER.items()}
    | {
        "v1 infer": ALL,
        "v1 is_model_ready other": OTHER_MODEL,
        "v2 is_server_live": True,
        "v2 is_server_ready": True,
        "v2 is_model_ready": True,
        "v2 is_model_ready other": False,
        "v2 infer nested": ALL,
        "grpc is_server_live": True,
        "grpc is_server_ready": True,
        "grpc is_model_ready": True,
        "grpc is_model_ready other": OTHER_MODEL,
    },
    "mlserver": {
        "server metadata": EXTENSIONS,
        "model metadata": NAMES,
        "infer StringCodec": ALL,
        "infer without nulls": ALL,
        "infer texts": ALL,
        "infer Base64Codec": ALL,
        "infer PandasCodec": ALL,
        "infer an output": TAG,
        "infer by name": BY_NAME,
        "infer with headers": ALL,
        "infer StringRequestCodec": Error("the input must have the name 'post' and the datatype 'BYTES'"),
        "mlserver infer": ALL,
        "grpc ServerLive": True,
        "grpc ServerReady": True,
        "grpc ModelReady": True,
        "grpc ModelMetadata": list(ALL),
        "grpc ModelInfer": ALL,
        "grpc ModelInfer raw": ALL,
    },
}
CALLS = [(client, call) for client, calls in EXPECTED.items() for call in calls]


def environment(client):
    """The Python in the environment of a client; skips the test where it is not installed."""
    folder = ROOT / ".clients" / client
    if not (folder / "installed").exists():
        pytest.skip("needs the clients of other servers (make clients)")
    return folder / "bin" / "python"


def run(python, *arguments):
    """What a program prints. It may keep the bytecode of the client, which takes long to compile."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([python, *arguments], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def outcomes(served):
    """Of each client the outcomes of all its calls, made when they are first asked for."""
    made = {}
    addresses = [served.client.base_url.netloc.decode(), served.grpc, str(Registry(served.store).live())]

    def of(client):
        if client not in made:
            made[client] = json.loads(run(environment(client), SCRIPTS / f"call_{client}.py", *addresses))
        return made[client]

    return of


@pytest.fixture(scope="module")
def expected(served):
    return served.client.post(f"{MODEL}:predict", json={"inputs": TEXTS}).json()["outputs"]


@pytest.fixture(scope="module")
def tag_names(served):
    return served.client.get(f"{MODEL}/metadata").json()["metadata"]["tag_names"]


@pytest.mark.parametrize(("client", "call"), CALLS, ids=map(": ".join, CALLS))
def test_a_real_client_gets_what_it_asks_for(outcomes, expected, tag_names, client, call):
    outcome, wanted = outcomes(client)[call], EXPECTED[client][call]
    if isinstance(wanted, Error):
        assert wanted in re.sub(r"\\(?=')", "", outcome["error"])
    elif wanted is BY_NAME:
        rows = np.array(outcome["probabilities"]).reshape(len(TEXTS), 2).tolist()
        for row, probabilities in zip(rows, expected["probabilities"], strict=True):
            best = np.argsort(-np.array(probabilities), kind="stable")[:2]
            assert [name.partition(":")[2] for name in row] == [f"{at}:{tag_names[at]}" for at in best]
    elif wanted is NAMES:
        assert [output["name"] for output in outcome] == list(ALL)
        assert outcome[-1]["parameters"] == {"tag_names": tag_names}
    elif isinstance(wanted, tuple):
        same({name: outcome[name] for name in outcome if name != "id"}, {name: expected[name] for name in wanted})
    else:
        assert outcome == wanted


@pytest.mark.parametrize(
    ("client", "call"),
    [
        ("tritonclient", "http infer request_id"),
        ("tritonclient", "grpc infer request_id"),
        ("kserve", "v2 infer list"),
        ("kserve", "grpc infer binary"),
        ("mlserver", "infer StringCodec"),
        ("mlserver", "grpc ModelInfer raw"),
    ],
)
def test_the_id_of_a_request_comes_back(outcomes, client, call):
    assert outcomes(client)[call]["id"] == "42"


def same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        if name == "tag":
            assert np.ravel(found[name]).tolist() == values
        else:
            assert np.allclose(np.reshape(found[name], np.shape(values)), values, atol=1e-6)


@pytest.mark.parametrize("client", EXPECTED)
def test_no_call_of_a_script_is_left_out(outcomes, client):
    assert sorted(outcomes(client)) == sorted(EXPECTED[client])


POST = "How do I center a div with css?"
EXAMPLES = {
    re.search(r"^(?:from|import) (tritonclient|kserve|mlserver|tensorflow_serving)", code, re.MULTILINE)[1]: code
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
}


@pytest.mark.parametrize("client", [*EXPECTED, "tensorflow_serving"])
def test_the_example_of_the_page_prints_the_tag_of_its_post(served, client):
    code = EXAMPLES[client].replace("127.0.0.1:8501", served.client.base_url.netloc.decode())
    python = sys.executable if client == "tensorflow_serving" else environment(client)
    printed = run(python, "-c", code.replace("127.0.0.1:8500", served.grpc))
    assert f'["{POST}"]' in code
    assert printed.split() == served.client.post(f"{MODEL}:predict", json={"inputs": [POST]}).json()["outputs"]["tag"]
