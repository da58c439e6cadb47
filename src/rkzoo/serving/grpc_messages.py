"""Messages of `inference.GRPCInferenceService`, made of a table of their fields.

So nothing has to be generated; and they lie in a pool of their own, since a client of the protocol
in the same process brings descriptors of the same names. Source of names and numbers:
https://github.com/kserve/open-inference-protocol (specification/protocol/open_inference_grpc.proto)
and Triton's model repository and stream: https://github.com/triton-inference-server/common
(protobuf/grpc_service.proto).
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"

_PARAMETERS = "map<string, InferParameter> parameters"
_SETTINGS = "map<string, ModelRepositoryParameter> parameters"

FIELDS = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": "string name = 1; repeated string versions = 2; string platform = 3;"
    " repeated ModelMetadataResponse.TensorMetadata inputs = 4;"
    " repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    "ModelMetadataResponse.TensorMetadata": "string name = 1; string datatype = 2;"
    " repeated int64 shape = 3",
    "ModelInferRequest": "string model_name = 1; string model_version = 2; string id = 3;"
    f" {_PARAMETERS} = 4; repeated ModelInferRequest.InferInputTensor inputs = 5;"
    " repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6;"
    " repeated bytes raw_input_contents = 7",
    "ModelInferRequest.InferInputTensor": "string name = 1; string datatype = 2;"
    f" repeated int64 shape = 3; {_PARAMETERS} = 4; InferTensorContents contents = 5",
    "ModelInferRequest.InferRequestedOutputTensor": f"string name = 1; {_PARAMETERS} = 2",
    "ModelInferResponse": "string model_name = 1; string model_version = 2; string id = 3;"
    f" {_PARAMETERS} = 4; repeated ModelInferResponse.InferOutputTensor outputs = 5;"
    " repeated bytes raw_output_contents = 6",
    "ModelInferResponse.InferOutputTensor": "string name = 1; string datatype = 2;"
    f" repeated int64 shape = 3; {_PARAMETERS} = 4; InferTensorContents contents = 5",
    "ModelStreamInferResponse": "string error_message = 1; ModelInferResponse infer_response = 2",
    "InferParameter": "bool bool_param = 1; int64 int64_param = 2; string string_param = 3;"
    " double double_param = 4; uint64 uint64_param = 5",
    "InferTensorContents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2;"
    " repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4;"
    " repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;"
    " repeated double fp64_contents = 7; repeated bytes bytes_contents = 8",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2",
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models = 1",
    "RepositoryIndexResponse.ModelIndex": "string name = 1; string version = 2; string state = 3;"
    " string reason = 4",
    "RepositoryModelLoadRequest": "string repository_name = 1; string model_name = 2;"
    f" {_SETTINGS} = 3",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "string repository_name = 1; string model_name = 2;"
    f" {_SETTINGS} = 3",
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": "bool bool_param = 1; int64 int64_param = 2;"
    " string string_param = 3; bytes bytes_param = 4",
}
"""The fields of each message, as a .proto has them; a message in another follows it."""

CHOICE = "parameter_choice"
_CHOICES = ("InferParameter", "ModelRepositoryParameter")  # of whose fields one is set

_FIELD = re.compile(
    r"(?P<many>repeated )?(?:map<string, (?P<map>\w+)>|(?P<type>[\w.]+))"
    r" (?P<name>\w+) = (?P<number>\d+)"
)


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="rkzoo/inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for path, fields in FIELDS.items():
        outer, _, name = path.rpartition(".")
        message = (made[outer].nested_type if outer else file.message_type).add(name=name)
        made[path] = message
        if path in _CHOICES:
            message.oneof_decl.add(name=CHOICE)
        for text in filter(None, fields.split("; ")):
            field = _add_field(message, path, text)
            if path in _CHOICES:
                field.oneof_index = 0
    return file


def _add_field(message: DescriptorProto, path: str, text: str) -> FieldDescriptorProto:
    parts = _FIELD.fullmatch(text)
    assert parts is not None, text
    kind = parts["type"]
    if parts["map"]:
        # On the wire a map is a repeated message of keys and values.
        name = f"{parts['name'].capitalize()}Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        for field in ("string key = 1", f"{parts['map']} value = 2"):
            _add_field(entry, f"{path}.{name}", field)
        kind = f"{path}.{name}"
    made = message.field.add(name=parts["name"], number=int(parts["number"]))
    many = parts["many"] or parts["map"]
    made.label = made.LABEL_REPEATED if many else made.LABEL_OPTIONAL
    if kind in _SCALARS:
        made.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        made.type, made.type_name = made.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return made


_SCALARS = {"bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes"}

_POOL = DescriptorPool()
_POOL.Add(_file())

MESSAGES: dict[str, type[Any]] = {
    name: GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in FIELDS
}
"""The class of each message."""
