"""TFRecord files and Examples, against an independent implementation of protocol buffers."""

import struct

import numpy as np
import pytest

from vgen.data.tfrecord import byte_features, crc32c, masked_crc32c, read_record, record_offsets
from vgen.video.io import UnreadableVideo


def example_class():
    """`tf.train.Example`, built from its description."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")

    def message(name, *fields, into=file.message_type):
        made = into.add(name=name)
        for number, (field, type_, label, type_name) in enumerate(fields, start=1):
            made.field.add(name=field, number=number, type=type_, label=label, type_name=type_name)
        return made

    one, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
    message("BytesList", ("value", kind.TYPE_BYTES, many, None))
    message("FloatList", ("value", kind.TYPE_FLOAT, many, None))
    message("Int64List", ("value", kind.TYPE_INT64, many, None))
    lists = ("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")
    message("Feature", *((name, kind.TYPE_MESSAGE, one, f".tf.{type_}") for name, type_ in lists))
    features = message("Features", ("feature", kind.TYPE_MESSAGE, many, ".tf.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        ("key", kind.TYPE_STRING, one, None),
        ("value", kind.TYPE_MESSAGE, one, ".tf.Feature"),
        into=features.nested_type,
    )
    entry.options.map_entry = True
    message("Example", ("features", kind.TYPE_MESSAGE, one, ".tf.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


@pytest.fixture(scope="module")
def message():
    example = example_class()()
    example.features.feature["0/image_aux1/encoded"].bytes_list.value.append(bytes(range(256)) * 48)
    example.features.feature["1/image_aux1/encoded"].bytes_list.value.extend([b"first", b"second"])
    example.features.feature["0/action"].float_list.value.extend([0.5, -1.0])
    example.features.feature["number"].int64_list.value.extend([-1, 1 << 40])
    return example.SerializeToString()


def record(content):
    length = struct.pack("<Q", len(content))
    crcs = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(crcs) + content + next(crcs)


def test_checksums_are_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283  # the check value that every description gives
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_bytes_of_an_example(message):
    found = byte_features(message)
    assert found == {"0/image_aux1/encoded": bytes(range(256)) * 48, "1/image_aux1/encoded": b"first"}
    assert byte_features(message, {"1/image_aux1/encoded"}) == {"1/image_aux1/encoded": b"first"}
    with pytest.raises(ValueError, match="cut off"):
        byte_features(message[: len(message) // 2])


def test_records_of_a_file(message, tmp_path):
    path = tmp_path / "a.tfrecords"
    whole = record(message) + record(b"") + record(b"abc")
    path.write_bytes(whole)
    places = record_offsets(path)
    assert [read_record(path, *place, check=True) for place in places] == [message, b"", b"abc"]
    for cut in (3, 14, len(message), len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnreadableVideo, match="cut off"):
            record_offsets(path)
    path.write_bytes(b"this is a text, and not a short one")
    with pytest.raises(UnreadableVideo, match="no TFRecord file"):
        record_offsets(path)
    damaged = np.frombuffer(whole, np.uint8).copy()
    damaged[40] ^= 1
    path.write_bytes(damaged.tobytes())
    assert read_record(path, *places[0]) != message
    with pytest.raises(UnreadableVideo, match="checksum"):
        read_record(path, *places[0], check=True)
