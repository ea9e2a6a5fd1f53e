"""Weight files: checkpoints as TensorFlow writes them (written here), safetensors, and damaged files of both."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch

from psysim.errors import StoreError
from psysim.models import phaselocknet as pl

LAYERS = [
    {"layer_type": "layernorm", "args": {"name": "input_norm", "axis": [1, 2, 3], "scale": False, "center": False}},
    {"layer_type": "conv2d", "args": {"name": "conv", "filters": 4, "kernel_size": [2, 3], "groups": 2}},
    {"layer_type": "batchnorm", "args": {"name": "norm"}},
    {"layer_type": "hpool", "args": {"name": "pool", "pool_size": [1, 4], "strides": [1, 2]}},
    {"layer_type": "flatten", "args": {"name": "flat"}},
    {"layer_type": "branch", "args": {"name": "branch"}},
    {"layer_type": "dense", "args": {"name": "dense", "units": 5, "use_bias": False}},
    {"layer_type": "fc_top", "args": {"name": "top"}},
]
SHAPE, HEADS = (2, 4, 12), {"b": 3, "a": 2}


def network(seed: int | None = 0, **options: object) -> pl.Network:
    return pl.Network(pl.Architecture.parse(LAYERS, SHAPE, HEADS), seed=seed, **options)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table's block: keys share prefixes, every 16th is whole."""
    out, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 16 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + b"".join(struct.pack("<I", r) for r in restarts or [0]) + struct.pack("<I", len(restarts) or 1)


def write_bundle(prefix: Path, tensors: dict[str, np.ndarray], n_shards: int = 3, per_block: int = 3) -> None:
    """Write a checkpoint as TensorFlow does, in several shards and several blocks of the index."""
    dtypes = {"float32": 1, "float64": 2, "int64": 9, "float16": 19}
    shards = [b""] * n_shards
    entries = [(b"", field(1, n_shards) + field(3, field(1, 1)))]
    for i, (name, value) in enumerate(sorted(tensors.items())):
        shard, data = i % n_shards, value.tobytes()
        dims = b"".join(field(2, field(1, n)) for n in value.shape)
        message = field(1, dtypes[value.dtype.name]) + field(2, dims)
        message += (field(3, shard) if shard else b"") + (field(4, len(shards[shard])) if shards[shard] else b"")
        message += field(5, len(data)) + varint(6 << 3 | 5) + masked(data)
        entries.append((name.encode(), message))
        shards[shard] += data
    table, handles = b"", []

    def add(content: bytes) -> bytes:
        nonlocal table
        handle = varint(len(table)) + varint(len(content))
        table += content + b"\0" + masked(content + b"\0")
        return handle

    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        handles.append((part[-1][0], add(block(part))))
    footer = add(block([])) + add(block(handles))
    table += footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table)
    for i, data in enumerate(shards):
        prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{n_shards:05d}").write_bytes(data)


def variables(prefix: str = "model/") -> dict[str, np.ndarray]:
    """Return the variables that Keras would have for the network, all different."""
    order = [
        ("kernel", (2, 3, 1, 4)),
        ("bias", (4,)),
        ("gamma", (4,)),
        ("beta", (4,)),
        ("moving_mean", (4,)),
        ("moving_variance", (4,)),
        ("kernel", (48, 5)),
        ("kernel", (5, 2)),
        ("bias", (2,)),
        ("kernel", (48, 5)),
        ("kernel", (5, 3)),
        ("bias", (3,)),
    ]
    layers = [0, 0, 1, 1, 1, 1, 2, 3, 3, 4, 5, 5]
    rng = np.random.default_rng(2)
    found = {}
    for n, (kind, shape) in zip(layers, order, strict=True):
        name = f"{prefix}layer_with_weights-{n}/{kind}"
        found[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"] = rng.uniform(0.5, 1, shape).astype(np.float32)
        slot = rng.normal(size=shape).astype(np.float32)
        found[f"{name}/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"] = slot
    found["optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE"] = np.array(7, dtype=np.int64)
    return found


@pytest.mark.parametrize("prefix", ["model/", ""])
def test_variables_of_a_checkpoint_go_to_their_layers(tmp_path: Path, prefix: str) -> None:
    given = variables(prefix)
    write_bundle(tmp_path / "ckpt_BEST", given)
    net = network()
    pl.load_weights(net, pl.find_weights(tmp_path))
    weights = net.weights()

    def variable(n: int, kind: str) -> np.ndarray:
        return given[f"{prefix}layer_with_weights-{n}/{kind}/.ATTRIBUTES/VARIABLE_VALUE"]

    expected = {
        "body.conv.weight": variable(0, "kernel").transpose(3, 2, 0, 1),
        "body.conv.bias": variable(0, "bias"),
        "body.norm.weight": variable(1, "gamma"),
        "body.norm.bias": variable(1, "beta"),
        "body.norm.running_mean": variable(1, "moving_mean"),
        "body.norm.running_var": variable(1, "moving_variance"),
        "head.a.dense.weight": variable(2, "kernel").T,
        "head.a.fc_output.weight": variable(3, "kernel").T,
        "head.a.fc_output.bias": variable(3, "bias"),
        "head.b.dense.weight": variable(4, "kernel").T,
        "head.b.fc_output.weight": variable(5, "kernel").T,
        "head.b.fc_output.bias": variable(5, "bias"),
    }
    assert set(weights) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name].detach().numpy(), value)


def test_one_shard_one_block_and_half_precision(tmp_path: Path) -> None:
    given = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in variables().items()}
    write_bundle(tmp_path / "ckpt_BEST", given, n_shards=1, per_block=1000)
    pl.load_weights(network(), tmp_path / "ckpt_BEST")


def spoil(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: spoil(p / "ckpt_BEST.data-00000-of-00003", 0), "checksum of .* is wrong"),
        (lambda p: spoil(p / "ckpt_BEST.index", 40), "damaged or is no checkpoint index.*checksum"),
        (lambda p: spoil(p / "ckpt_BEST.index", -3), "damaged or is no checkpoint index"),
        (lambda p: (p / "ckpt_BEST.index").write_bytes(b"short"), "damaged or is no checkpoint index"),
        (lambda p: (p / "ckpt_BEST.data-00001-of-00003").unlink(), "data-00001-of-00003 cannot be read"),
        (lambda p: (p / "ckpt_BEST.data-00000-of-00003").write_bytes(b""), "too short"),
        (lambda p: (p / "ckpt_BEST.index").unlink(), "ckpt_BEST.index cannot be read"),
    ],
)
def test_a_damaged_checkpoint(tmp_path: Path, damage: object, message: str) -> None:
    write_bundle(tmp_path / "ckpt_BEST", variables())
    damage(tmp_path)
    with pytest.raises(StoreError, match=message):
        pl.load_weights(network(), tmp_path / "ckpt_BEST.index")


def test_every_damaged_byte_of_an_index_is_found(tmp_path: Path) -> None:
    """Whatever byte is wrong: a clear error, or weights that are right all the same (unused padding)."""
    write_bundle(tmp_path / "ckpt_BEST", variables())
    whole = (tmp_path / "ckpt_BEST.index").read_bytes()
    expected = pl.read_tensorflow(tmp_path / "ckpt_BEST", network().architecture)
    for place in range(0, len(whole), 7):
        (tmp_path / "ckpt_BEST.index").write_bytes(whole)
        spoil(tmp_path / "ckpt_BEST.index", place)
        try:
            found = pl.read_tensorflow(tmp_path / "ckpt_BEST", network().architecture)
        except StoreError:
            continue
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("model/layer_with_weights-1/gamma/.ATTRIBUTES/VARIABLE_VALUE"), "missing: body.norm.weight"),
        (
            lambda v: v.update({"model/layer_with_weights-9/bias/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(2)}),
            r"belongs to no layer.*6 layers with weights",
        ),
        (
            lambda v: v.update({"model/layer_with_weights-2/bias/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(5)}),
            "unknown: head.a.dense.bias",
        ),
        (
            lambda v: v.update({"model/layer_with_weights-0/alpha/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(5)}),
            "alpha.*belongs to no layer",
        ),
        (
            lambda v: v.update({"model/layer_with_weights-3/bias/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3)}),
            r"head.a.fc_output.bias has shape \(3,\), but the architecture needs \(2,\)",
        ),
        (
            lambda v: v.update({"model/layer_with_weights-3/bias/.ATTRIBUTES/VARIABLE_VALUE": np.full(2, np.nan)}),
            "not finite",
        ),
        (lambda v: v.clear() or v.update(other=np.zeros(3)), "no checkpoint of a Keras model"),
    ],
)
def test_a_checkpoint_of_another_network(tmp_path: Path, change: object, message: str) -> None:
    given = variables()
    change(given)
    write_bundle(tmp_path / "ckpt_BEST", given)
    net = network()
    before = {name: value.clone() for name, value in net.weights().items()}
    with pytest.raises(StoreError, match=message):
        pl.load_weights(net, tmp_path / "ckpt_BEST")
    assert all(torch.equal(value, before[name]) for name, value in net.weights().items())  # all or nothing


def test_round_trip_in_safetensors(tmp_path: Path) -> None:
    net = network(seed=3, dtype="float64")
    path = pl.save_weights(net, tmp_path / "new" / "net.safetensors", {"note": "text"})
    assert pl.read_metadata(path)["note"] == "text"
    again = network(seed=None, dtype="float64")
    pl.load_weights(again, path)
    for name, value in net.weights().items():
        assert torch.equal(again.weights()[name], value)
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]
    with pytest.raises(StoreError, match="exists; it will not be replaced"):
        pl.save_weights(net, path)
    with pytest.raises(StoreError, match=r"ends in \.safetensors"):
        pl.save_weights(net, tmp_path / "net.pt")


def test_other_software_can_read_the_file_and_its_kernels_are_checked(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    net = network(seed=3)
    tensors = load_file(pl.save_weights(net, tmp_path / "net.safetensors"))
    assert set(tensors) == set(net.weights())
    tensors["body.norm.num_batches_tracked"] = torch.tensor(4)  # as the original's files have them
    tensors["body.pool.weight"] = net.body["pool"].weight.clone()
    save_file(tensors, tmp_path / "more.safetensors")
    pl.load_weights(network(), tmp_path / "more.safetensors")
    tensors["body.pool.weight"] = tensors["body.pool.weight"] + 1
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(StoreError, match=r"fixed kernel body.pool.weight is not the one"):
        pl.load_weights(network(), tmp_path / "wrong.safetensors")


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = pl.save_weights(network(), tmp_path / "net.safetensors")
    spoil(path, -5)
    with pytest.raises(StoreError, match=r"checksum of .* is wrong"):
        pl.load_weights(network(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match="damaged or is no safetensors file"):
        pl.load_weights(network(), path)
    with pytest.raises(StoreError, match="damaged or is no safetensors file"):
        pl.read_metadata(path)
    path.unlink()
    for call in (lambda: pl.load_weights(network(), path), lambda: pl.read_metadata(path)):
        with pytest.raises(StoreError, match="There is no weight file"):
            call()


def test_pickles_are_refused(tmp_path: Path) -> None:
    torch.save(network().weights(), tmp_path / "ckpt_BEST.pt")
    with pytest.raises(StoreError, match=r"a pickle can run any program.*save_file"):
        pl.load_weights(network(), tmp_path / "ckpt_BEST.pt")


def test_the_weights_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no weights"):
        pl.find_weights(tmp_path)
    pl.save_weights(network(), tmp_path / "a.safetensors")
    assert pl.find_weights(tmp_path).name == "a.safetensors"
    pl.save_weights(network(), tmp_path / "b.safetensors")
    with pytest.raises(StoreError, match="several weight files"):
        pl.find_weights(tmp_path)


def test_label_sets(tmp_path: Path) -> None:
    from psysim.errors import SpecError

    path = tmp_path / "labels.json"
    for content, message in (
        ({"a": ["x"]}, "a has 2 classes, but 1 labels"),
        ({"a": ["x", "x"]}, "name 'x' twice"),
        ({"c": ["x", "y"]}, "no such head"),
        ({"a": [1, 2]}, "list of texts"),
        ({"a": "xy"}, "list of texts"),
        ([1], "must hold a JSON object"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(SpecError, match=message):
            pl.read_labels(path, HEADS)
    path.write_text("{")
    with pytest.raises(SpecError, match="is not JSON"):
        pl.read_labels(path, HEADS)
    path.write_text('{"a": ["", "yes"]}')
    assert pl.read_labels(path, HEADS) == {"a": ["", "yes"]}
