"""Open Inference, over HTTP and gRPC: the forms in which posts come and outputs go, and what is refused."""

import base64
import gzip
import json
import re
import struct
import zlib

import grpc
import numpy as np
import pytest

from pipeline.server.open_inference_proto import MESSAGE, METHODS, SERVICE
from tests.server.conftest import MODEL

INFER = "/v2/models/stackoverflow_tagger/infer"
JSON_LENGTH = "Inference-Header-Content-Length"
TEXTS = ["how do i center a div with css", "print a list in python", "", "naïve 🙂 \x00 text"]
NAMES = ["tag", "probability", "probabilities"]


def packed(texts):
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def unpacked(data):
    texts = []
    while data:
        [length] = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return texts


def tensor(**changed):
    return {"name": "post", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS} | changed


def binary_tensor(size, **changed):
    there = tensor(parameters={"binary_data_size": size})
    del there["data"]
    return there | changed


def asked(served, body, binary=b"", length=None):
    """The answer to a request, with binary data behind its JSON."""
    head = json.dumps(body).encode()
    headers = {JSON_LENGTH: str(len(head)) if length is None else length} if binary or length is not None else {}
    return served.client.post(INFER, content=head + binary, headers=headers)


def outputs_of(answer):
    """The outputs of an answer, whether they are JSON or binary."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(JSON_LENGTH, len(answer.content)))
    binary, outputs = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        values = output.get("data")
        if values is None:
            size = output["parameters"]["binary_data_size"]
            part, binary = binary[:size], binary[size:]
            values = unpacked(part) if output["datatype"] == "BYTES" else np.frombuffer(part, "<f4")
        outputs[output["name"]] = np.array(values).reshape(output["shape"])
    assert not binary
    return outputs


@pytest.fixture(scope="module")
def expected(served):
    rows = served.client.post(f"{MODEL}:predict", json={"inputs": TEXTS}).json()["outputs"]
    return {name: np.array(values) for name, values in rows.items()}


@pytest.fixture(scope="module")
def tag_names(served):
    return served.client.get(f"{MODEL}/metadata").json()["metadata"]["tag_names"]


def same(found, expected, names=NAMES):
    assert list(found) == list(names)
    for name in names:
        if found[name].dtype.kind == "U":
            assert found[name].tolist() == expected[name].tolist()
        else:
            assert np.allclose(found[name], expected[name], atol=1e-6)


BINARY = packed(TEXTS)
NESTED = [[text] for text in TEXTS]
BASE64 = [base64.b64encode(text.encode()).decode() for text in TEXTS]
FORMS = {
    "flat": (tensor(), b""),
    "a column": (tensor(shape=[len(TEXTS), 1]), b""),
    "nested": (tensor(shape=[len(TEXTS), 1], data=NESTED), b""),
    "binary": (binary_tensor(len(BINARY)), BINARY),
    "a binary column": (binary_tensor(len(BINARY), shape=[len(TEXTS), 1]), BINARY),
    "binary, data null": (binary_tensor(len(BINARY), data=None), BINARY),
    "base64 of MLServer": (tensor(data=BASE64, parameters={"content_type": "base64"}), b""),
    "parameters of others": (tensor(parameters={"content_type": "str", "headers": {}}), b""),
    "parameters null": (tensor(parameters=None), b""),
}


@pytest.mark.parametrize("form", FORMS)
def test_posts_may_come_in_each_form_of_the_protocol(served, expected, form):
    data, binary = FORMS[form]
    same(outputs_of(asked(served, {"inputs": [data]}, binary)), expected)


@pytest.mark.parametrize(
    "field",
    [
        {"id": None, "parameters": None, "outputs": None},
        {"id": "a", "model_name": "stackoverflow_tagger", "model_version": None},
        {"parameters": {"sequence_id": 5, "sequence_start": True, "priority": 1, "timeout": 10}},
        {"outputs": []},
        {"outputs": [{"name": name, "parameters": {"shared": 1}} for name in NAMES]},
        {"outputs": [{"name": name, "parameters": None} for name in NAMES]},
    ],
)
def test_what_the_protocols_types_allow_is_taken(served, expected, field):
    same(outputs_of(asked(served, {"inputs": [tensor()]} | field)), expected)


@pytest.mark.parametrize("every", [None, False, True])
@pytest.mark.parametrize("first", [None, False, True])
def test_outputs_are_binary_where_the_request_or_the_output_says_so(served, expected, every, first):
    """What an output says of itself comes first."""
    outputs = [{"name": "probabilities"}, {"name": "tag"}]
    if first is not None:
        outputs[0]["parameters"] = {"binary_data": first}
    body = {"inputs": [tensor()], "outputs": outputs}
    if every is not None:
        body["parameters"] = {"binary_data_output": every}
    answer = asked(served, body)
    same(outputs_of(answer), expected, ["probabilities", "tag"])
    head = json.loads(answer.content[: int(answer.headers.get(JSON_LENGTH, len(answer.content)))])
    is_binary = ["data" not in output for output in head["outputs"]]
    assert is_binary == [bool(every if first is None else first), bool(every)]
    assert answer.headers["content-type"] == ("application/octet-stream" if any(is_binary) else "application/json")


def test_all_outputs_are_binary_if_none_is_named(served, expected):
    answer = asked(served, {"inputs": [tensor()], "parameters": {"binary_data_output": True}})
    assert b'data":' not in answer.content
    same(outputs_of(answer), expected)


def test_bytes_that_are_not_utf_8_are_read_as_they_are(served):
    posts = [b"caf\xe9 css", b"\xff"]
    answer = asked(served, {"inputs": [binary_tensor(len(packed(posts)), shape=[2])]}, packed(posts))
    encoded = [{"b64": base64.b64encode(post).decode()} for post in posts]
    as_rows = served.client.post(f"{MODEL}:predict", json={"inputs": encoded}).json()["outputs"]
    assert outputs_of(answer)["tag"].tolist() == as_rows["tag"]


def test_the_classification_extension_gives_the_probabilities_by_name(served, expected, tag_names):
    for count, binary in ((3, False), (3, True), (100, False)):
        wanted = {"name": "probabilities", "parameters": {"classification": count, "binary_data": binary}}
        found = outputs_of(asked(served, {"inputs": [tensor()], "outputs": [wanted]}))["probabilities"]
        assert found.shape == (len(TEXTS), min(count, len(tag_names)))
        for row, probabilities in zip(found.tolist(), expected["probabilities"], strict=True):
            best = np.argsort(-probabilities, kind="stable")[:count]
            assert row == [f"{np.float32(probabilities[at]):f}:{at}:{tag_names[at]}" for at in best]


def test_the_metadata_names_the_tags_in_the_order_of_the_probabilities(served, tag_names):
    answer = served.client.post(f"{MODEL}:classify", json={"examples": [{"post": "css"}]})
    assert [tag for tag, _ in answer.json()["results"][0]] == tag_names
    for which in ("", f"/versions/{_version(served)}"):
        outputs = served.client.get(f"/v2/models/stackoverflow_tagger{which}").json()["outputs"]
        named = {output["name"]: output.get("parameters") for output in outputs}
        assert named == {"tag": None, "probability": None, "probabilities": {"tag_names": tag_names}}
        assert outputs[-1]["shape"] == [-1, len(tag_names)]


def _version(served):
    return served.client.get(MODEL).json()["model_version_status"][0]["version"]


def test_the_server_says_which_extensions_it_speaks(served):
    assert served.client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]


def wants(**output):
    return {"inputs": [tensor()], "outputs": [output]}


HUGE = 2**40
REFUSED = [
    ({"inputs": [tensor(shape=[3])]}, b"", None, 400, "shape is [3], but inputs[0].data has 4 entries"),
    ({"inputs": [tensor(shape=[HUGE])]}, b"", None, 413, "1,099,511,627,776 entries: send at most 1,000"),
    ({"inputs": [tensor(shape=[2, 2])]}, b"", None, 400, "shape is [2, 2]: send [n], or [n, 1]"),
    ({"inputs": [tensor(shape=[])]}, b"", None, 400, "shape is []"),
    ({"inputs": [tensor(shape=[4, 1, 1])]}, b"", None, 400, "shape is [4, 1, 1]"),
    ({"inputs": [tensor(shape=[-4])]}, b"", None, 400, "shape is [-4]"),
    ({"inputs": [tensor(shape=[True])]}, b"", None, 400, "shape is [True]"),
    ({"inputs": [tensor(shape=["4" * 1000])]}, b"", None, 400, "send [n], or [n, 1]"),
    ({"inputs": [tensor(shape=4)]}, b"", None, 400, "shape must be a list"),
    ({"inputs": [tensor(shape=[4], data=NESTED)]}, b"", None, 400, "data[0] is a list"),
    ({"inputs": [tensor(shape=[4, 1], data=[[["a"]]] * 4)]}, b"", None, 400, "data[0] is a list"),
    ({"inputs": [tensor(shape=[4, 1], data=[["a"], "b", "c", "d"])]}, b"", None, 400, "data[0] is a list"),
    ({"inputs": [tensor(data="text")]}, b"", None, 400, "data must be a list of texts"),
    ({"inputs": [tensor(parameters=[])]}, b"", None, 400, "parameters of inputs[0] are not an object"),
    ({"inputs": [tensor(parameters={"content_type": "base64"})]}, b"", None, 400, "not base64"),
    ({"inputs": [tensor(), tensor()]}, b"", None, 400, "a list with one object"),
    ({"inputs": [tensor(name="text")]}, b"", None, 400, "the name 'post'"),
    ({"inputs": [tensor()], "parameters": 1}, b"", None, 400, "parameters of the body are not an object"),
    ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, b"", None, 400, "neither true nor false"),
    ({"inputs": [tensor()], "input": 1}, b"", None, 400, "unknown field 'input'"),
    # binary data
    ({"inputs": [binary_tensor(len(BINARY))]}, b"", None, 400, "the body has 0 bytes behind its JSON"),
    ({"inputs": [tensor()]}, BINARY, None, 400, "inputs[0] must have them as its binary_data_size"),
    ({"inputs": [binary_tensor(len(BINARY) - 1)]}, BINARY, None, 400, "as its binary_data_size"),
    ({"inputs": [binary_tensor("9")]}, BINARY, None, 400, "as its binary_data_size"),
    ({"inputs": [binary_tensor(len(BINARY), data=TEXTS)]}, BINARY, None, 400, "and no data"),
    ({"inputs": [binary_tensor(len(BINARY), shape=[3])]}, BINARY, None, 400, "is not 3 texts"),
    ({"inputs": [binary_tensor(len(BINARY), shape=[5])]}, BINARY, None, 400, "is not 5 texts"),
    ({"inputs": [binary_tensor(len(BINARY), shape=[HUGE])]}, BINARY, None, 413, "send at most 1,000"),
    ({"inputs": [binary_tensor(3, shape=[1])]}, b"\0\0\0", None, 400, "is not 1 texts"),
    ({"inputs": [binary_tensor(5, shape=[1])]}, b"\xff\xff\xff\xffa", None, 400, "is not 1 texts"),
    ({"inputs": [binary_tensor(100_005, shape=[1])]}, packed(["a" * 100_001]), None, 413, "100,001 bytes"),
    ({"inputs": [tensor()]}, b"", "x", 400, "is 'x': send how many"),
    ({"inputs": [tensor()]}, b"", "-1", 400, "is '-1': send how many"),
    ({"inputs": [tensor()]}, b"", "9" * 5000, 400, "send how many"),
    ({"inputs": [tensor()]}, b"", "100000", 400, "send how many"),
    ({"inputs": [tensor()]}, b"", "0", 400, "not JSON"),
    ({"inputs": [tensor()]}, b"", "5", 400, "not JSON"),
    # outputs
    ({"inputs": [tensor()], "outputs": {}}, b"", None, 400, "outputs must be a list"),
    ({"inputs": [tensor()], "outputs": ["tag"]}, b"", None, 400, "its name must be a text"),
    ({"inputs": [tensor()], "outputs": [{"name": "tag"}] * 4000}, b"", None, 400, "has 'tag' twice"),
    (wants(name="other"), b"", None, 400, "no output 'other': the outputs are tag, probability, probabilities"),
    (wants(name="x" * 10_000), b"", None, 400, "no output 'x"),
    (wants(name="tag", parameters=1), b"", None, 400, "the parameters of the output 'tag'"),
    (wants(name="tag", parameters={"binary_data": "yes"}), b"", None, 400, "neither true nor false"),
    (wants(name="tag", parameters={"classification": 2}), b"", None, 400, "'tag' has no classes"),
    (wants(name="probabilities", parameters={"classification": -1}), b"", None, 400, "classification is -1"),
    (wants(name="probabilities", parameters={"classification": 101}), b"", None, 400, "a number up to 100"),
    (wants(name="probabilities", parameters={"classification": True}), b"", None, 400, "classification is True"),
]


@pytest.mark.parametrize(("body", "binary", "length", "status", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_contradicts_itself_is_refused_in_one_sentence(served, body, binary, length, status, sentence):
    answer = asked(served, body, binary, length)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 250


@pytest.mark.parametrize("which", ["", "/versions/{version}", "/labels/live"])
def test_parameters_of_vertex_ai_on_a_path_of_tensorflow_serving_are_not_used(served, which):
    """A container whose AIP_PREDICT_ROUTE is TensorFlow Serving's path gets them there."""
    path = f"{MODEL}{which.format(version=_version(served))}:predict"
    plain = served.client.post(path, json={"instances": TEXTS})
    for parameters in (None, {}, {"confidence": 0.5}):
        with_them = served.client.post(path, json={"instances": TEXTS, "parameters": parameters})
        assert (with_them.status_code, with_them.content) == (200, plain.content)


# Compression

COMPRESSIBLE = b'{"instances": ["how do i center a div with css"]}'


@pytest.mark.parametrize("path", [f"{MODEL}:predict", f"{MODEL}:classify", INFER, "/"])
def test_every_route_that_takes_a_body_reads_it_compressed(served, path):
    """Also where it does not like what it reads: it answers what it answers to the plain body."""
    plain = served.client.post(path, content=COMPRESSIBLE)
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        packed = served.client.post(path, content=pack(COMPRESSIBLE), headers={"Content-Encoding": encoding})
        assert (packed.status_code, packed.content) == (plain.status_code, plain.content)


def test_the_server_refuses_a_bomb_and_says_what_it_reads(served):
    bomb = gzip.compress(bytes(100 * 2**20))
    for content in (bomb, iter([bomb[:1000], bomb[1000:]])):
        refused = served.client.post(f"{MODEL}:predict", content=content, headers={"Content-Encoding": "gzip"})
        assert (refused.status_code, "once decompressed" in refused.json()["error"]) == (413, True)
    other = served.client.post(f"{MODEL}:predict", content=COMPRESSIBLE, headers={"Content-Encoding": "br"})
    assert (other.status_code, other.headers["accept-encoding"]) == (415, "gzip, deflate")


# gRPC


@pytest.fixture(scope="module")
def call(served):
    """Calls a method with the fields of its request."""
    with grpc.insecure_channel(served.grpc) as channel:
        stubs = {
            name: channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=MESSAGE[f"{name}Request"].SerializeToString,
                response_deserializer=MESSAGE[f"{name}Response"].FromString,
            )
            for name in METHODS
        }
        yield lambda method, **fields: stubs[method](MESSAGE[f"{method}Request"](**fields))


def grpc_tensor(texts=(), **changed):
    contents = {"bytes_contents": [text.encode() for text in texts]}
    return {"name": "post", "datatype": "BYTES", "shape": [len(TEXTS)], "contents": contents} | changed


def grpc_outputs(response):
    outputs = {}
    for at, output in enumerate(response.outputs):
        if response.raw_output_contents:
            raw = response.raw_output_contents[at]
            values = unpacked(raw) if output.datatype == "BYTES" else np.frombuffer(raw, "<f4")
        else:
            texts = [text.decode() for text in output.contents.bytes_contents]
            values = texts or list(output.contents.fp32_contents)
        outputs[output.name] = np.array(values).reshape(output.shape)
    return outputs


RAW = {"inputs": [grpc_tensor()], "raw_input_contents": [BINARY]}


@pytest.mark.parametrize("shape", [[len(TEXTS)], [len(TEXTS), 1]])
def test_grpc_answers_posts_in_the_form_in_which_they_came(served, call, expected, shape):
    for version in ("", _version(served)):
        named = {"model_name": "stackoverflow_tagger", "model_version": version, "id": "a1"}
        own = call("ModelInfer", **named, inputs=[grpc_tensor(TEXTS, shape=shape)])
        raw = call("ModelInfer", **named, **RAW | {"inputs": [grpc_tensor(shape=shape)]})
        for response in (own, raw):
            same(grpc_outputs(response), expected)
            assert (response.id, response.model_name, response.model_version) == (
                "a1",
                "stackoverflow_tagger",
                _version(served),
            )
        assert (len(own.raw_output_contents), len(raw.raw_output_contents)) == (0, len(NAMES))


def test_grpc_gives_the_outputs_that_are_asked_for_also_by_name(call, expected, tag_names):
    by_name = {"name": "probabilities", "parameters": [{"key": "classification", "value": {"int64_param": 2}}]}
    named = {"model_name": "stackoverflow_tagger", "outputs": [by_name, {"name": "tag"}]}
    found = grpc_outputs(call("ModelInfer", **named, **RAW))
    assert list(found) == ["probabilities", "tag"]
    for row, probabilities in zip(found["probabilities"].tolist(), expected["probabilities"], strict=True):
        best = np.argsort(-probabilities, kind="stable")[:2]
        assert row == [f"{np.float32(probabilities[at]):f}:{at}:{tag_names[at]}" for at in best]


def test_grpc_tells_the_same_as_http(served, call):
    server, model = served.client.get("/v2").json(), served.client.get("/v2/models/stackoverflow_tagger").json()
    told = call("ServerMetadata")
    assert [told.name, told.version, list(told.extensions)] == list(server.values())
    told = call("ModelMetadata", name="stackoverflow_tagger")
    assert [told.name, list(told.versions), told.platform] == [model["name"], model["versions"], model["platform"]]
    for kind in ("inputs", "outputs"):
        tensors = [[each.name, each.datatype, list(each.shape)] for each in getattr(told, kind)]
        assert tensors == [[each["name"], each["datatype"], each["shape"]] for each in model[kind]]
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ModelReady", name="stackoverflow_tagger", version=_version(served)).ready


def grpc_wants(**output):
    return {"inputs": [grpc_tensor(TEXTS)], "outputs": [output]}


GRPC_REFUSED = [
    ({}, "INVALID_ARGUMENT", "has 0 inputs: send 'post' only"),
    ({"inputs": [grpc_tensor(TEXTS)] * 2}, "INVALID_ARGUMENT", "has 2 inputs"),
    ({"inputs": [grpc_tensor(TEXTS, name="text")]}, "INVALID_ARGUMENT", "the name 'post'"),
    ({"inputs": [grpc_tensor(TEXTS, datatype="FP32")]}, "INVALID_ARGUMENT", "datatype 'BYTES'"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[])]}, "INVALID_ARGUMENT", "shape is []"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[-1])]}, "INVALID_ARGUMENT", "shape is [-1]"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[2, 2])]}, "INVALID_ARGUMENT", "shape is [2, 2]"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[1] * 10_000)]}, "INVALID_ARGUMENT", "send [n], or [n, 1]"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[3])]}, "INVALID_ARGUMENT", "shape is [3], but"),
    ({"inputs": [grpc_tensor(TEXTS, shape=[300_000_000])]}, "INVALID_ARGUMENT", "300,000,000 entries: send at most"),
    ({"inputs": [grpc_tensor([], shape=[0])]}, "INVALID_ARGUMENT", "is empty"),
    ({"inputs": [grpc_tensor(["a" * 100_001], shape=[1])]}, "INVALID_ARGUMENT", "100,001 bytes"),
    (RAW | {"inputs": [grpc_tensor(TEXTS)]}, "INVALID_ARGUMENT", "must have one entry, and the input then no"),
    (RAW | {"raw_input_contents": [BINARY, b""]}, "INVALID_ARGUMENT", "must have one entry"),
    (RAW | {"raw_input_contents": [BINARY[:-1]]}, "INVALID_ARGUMENT", "is not 4 texts"),
    (RAW | {"inputs": [grpc_tensor(shape=[2**40])]}, "INVALID_ARGUMENT", "send at most 1,000"),
    ({"inputs": [grpc_tensor(TEXTS)], "outputs": [{"name": "tag"}] * 4000}, "INVALID_ARGUMENT", "has 'tag' twice"),
    (grpc_wants(name="other"), "INVALID_ARGUMENT", "no output 'other'"),
    (
        grpc_wants(name="probabilities", parameters=[{"key": "classification", "value": {"int64_param": 2**40}}]),
        "INVALID_ARGUMENT",
        "a number up to 100",
    ),
    ({"inputs": [grpc_tensor(TEXTS)], "model_name": "other"}, "NOT_FOUND", "no model 'other'"),
    ({"inputs": [grpc_tensor(TEXTS)], "model_version": "7"}, "NOT_FOUND", "version 7 is not loaded"),
]


@pytest.mark.parametrize(("fields", "code", "sentence"), GRPC_REFUSED, ids=range(len(GRPC_REFUSED)))
def test_grpc_refuses_in_one_sentence(call, fields, code, sentence):
    with pytest.raises(grpc.RpcError, match=re.escape(sentence)) as refused:
        call("ModelInfer", **{"model_name": "stackoverflow_tagger"} | fields)
    assert refused.value.code().name == code


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_grpc_knows_no_other_model_or_version(call, method):
    for fields in ({"name": "other"}, {"name": "stackoverflow_tagger", "version": "7"}):
        with pytest.raises(grpc.RpcError) as refused:
            call(method, **fields)
        assert refused.value.code().name == "NOT_FOUND"


def test_nothing_that_was_refused_left_a_traceback(served):
    assert "Traceback" not in served.errors.read_text()
