"""Files as torch.save writes them, written without torch: the tests' own opcodes, from the format's description."""

import io
import pickle
import struct
import zipfile

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}
PROTOCOL = b"\x80\x02"


class Global:
    """An object made by calling module.name(*arguments), then restored from a state if there is one."""

    def __init__(self, module, name, *arguments, state=None):
        self.module, self.name, self.arguments, self.state = module, name, arguments, state


class Raw:
    """Opcodes as they are."""

    def __init__(self, opcodes):
        self.opcodes = opcodes


def write_zip(path, saved):
    """The form since torch 1.6: a zip of data.pkl and one file a storage."""
    blocks = []
    opcodes = PROTOCOL + _encode(saved, blocks, legacy=False) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", opcodes)
        archive.writestr("archive/byteorder", "little")
        for key, block in enumerate(blocks):
            archive.writestr(f"archive/data/{key}", block.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path, saved):
    """The older form: pickles in a row, then the storages."""
    blocks = []
    opcodes = PROTOCOL + _encode(saved, blocks, legacy=True) + b"."
    out = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        out.write(pickle.dumps(part, 2))
    out.write(opcodes)
    out.write(pickle.dumps([str(key) for key in range(len(blocks))], 2))
    for block in blocks:
        out.write(struct.pack("<q", len(block)) + block.tobytes())
    path.write_bytes(out.getvalue())


def _encode(value, blocks, legacy):
    def encode(x):
        return _encode(x, blocks, legacy)

    if isinstance(value, Raw):
        return value.opcodes
    if isinstance(value, np.ndarray):
        return _encode_tensor(value, blocks, legacy)
    if isinstance(value, Global):
        made = f"c{value.module}\n{value.name}\n".encode() + _tuple(value.arguments, encode) + b"R"
        return made + (b"" if value.state is None else encode(value.state) + b"b")
    if isinstance(value, dict):
        items = b"".join(encode(k) + encode(v) for k, v in value.items())
        return b"ccollections\nOrderedDict\n)R(" + items + b"u"
    if isinstance(value, tuple):
        return _tuple(value, encode)
    return pickle.dumps(value, 2)[2:-1]


def _tuple(values, encode):
    return b"(" + b"".join(encode(v) for v in values) + b"t"


def _encode_tensor(array, blocks, legacy):
    """A view [1:] of a storage one number longer, with the array's strides: views are what offsets are for."""
    flat = np.ascontiguousarray(array.T if array.flags.f_contiguous else array).ravel()
    blocks.append(np.concatenate([np.full(1, 7, array.dtype), flat]))
    key, size, strides = str(len(blocks) - 1), flat.size + 1, tuple(s // array.itemsize for s in array.strides)
    storage = Raw(f"ctorch\n{STORAGES[array.dtype.name]}\n".encode())
    described = ("storage", storage, key, "cpu", size) + ((None,) if legacy else ())
    persistent = Raw(_encode(described, blocks, legacy) + b"Q")
    arguments = (persistent, 1, array.shape, strides, False, {})
    return _encode(Global("torch._utils", "_rebuild_tensor_v2", *arguments), blocks, legacy)
