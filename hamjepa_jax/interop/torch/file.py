"""Files that torch.save or safetensors wrote, as plain Python objects and NumPy arrays: no torch, no code run.

A .pth file is a pickle, that is, a program for building objects. Here it may build containers, numbers, strings and
tensors; an object of any other class becomes an `Unread` with the class's name, and nothing of it is ever imported
or called.
"""

import logging
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from hamjepa_jax.errors import UserError

log = logging.getLogger(__name__)

STORAGES = {  # torch's storage class -> NumPy type; names only, since a pickle can alter the objects it is handed
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a file from before torch 1.6 (torchvision's weights are)
LEGACY_HEADER = 3  # objects before the saved one: the magic number, a version, sizes of C types


class Unread:
    """Stands for an object of a class that is not known here.

    Attributes:
      name: the class's dotted name.
      state: that the object would have been restored from, often a dict; settings are looked up in it.
    """

    name = ""
    state: Any = None

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.state = (self.state or {}) | {key: value}

    def append(self, item):
        """Items of unknown containers are dropped."""

    def __repr__(self):
        return f"<unread {self.name}>"


class Storage(NamedTuple):
    """A file's block of numbers: `key` in the file, `dtype` a NumPy name, `size` in elements."""

    key: str
    dtype: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in elements, until the storage is read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_file(path: str | pathlib.Path) -> Any:
    """The object in a .pth or .pt (zip or older form) or .safetensors file, with tensors as NumPy arrays.

    Raises:
      UserError: if the file is missing, damaged or of another kind.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder; give a file' if path.is_dir() else 'there is no such file'}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except UserError:
        raise
    except _OtherNumbers as error:
        raise UserError(
            f"{path}: holds tensors in a {error}, whose numbers are not read here (quantised, complex, of 8 bits, "
            f"unsigned); in PyTorch, leave them out or save them as float32."
        ) from None
    except Exception as error:  # A damaged pickle or archive can fail in any way.
        raise UserError(
            f"{path}: cannot be read as a file of torch.save or safetensors ({type(error).__name__}: {error}); "
            f"copy or download it again."
        ) from None


class _OtherNumbers(pickle.UnpicklingError):
    """A tensor's numbers are of a type that NumPy has no name for; the argument is the storage's class."""


class _DataUnpickler(pickle.Unpickler):
    """Builds plain objects and `Tensor`s; every other class becomes an `Unread`."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.unread: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        # Everything returned here is fresh or cannot be altered, so that no file leaves a trace in this process.
        if (module, name) == ("collections", "OrderedDict"):
            return type("Names", (_Names,), {})
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._parameter
        if (module, name) == ("torch", "Size"):
            return self._size
        self.unread.add(f"{module}.{name}")
        return type("Unread", (Unread,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind == "storage" and isinstance(dtype, type) and issubclass(dtype, Unread):
            raise _OtherNumbers(dtype.name)
        if kind != "storage" or not isinstance(dtype, str) or not isinstance(size, int):
            raise pickle.UnpicklingError(f"a storage is described by {pid!r}")
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("the file holds views of storages, as torch before 0.4 wrote them")
        return Storage(str(key), dtype, size)

    def _tensor(self, storage: Storage, offset: int, shape: tuple, strides: tuple, *rest: Any) -> Tensor:
        tensor = Tensor(storage, offset, tuple(shape), tuple(strides))
        numbers = (offset, *tensor.shape, *tensor.strides)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor is not described by its storage, offset, shape and strides")
        # Strides in the file could point beyond the storage.
        last = offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and last >= storage.size:
            raise pickle.UnpicklingError(f"a tensor of shape {tensor.shape} reaches beyond its storage")
        # Zero strides could make a small file a huge array.
        if math.prod(tensor.shape) > storage.size:
            raise pickle.UnpicklingError(f"a tensor of shape {tensor.shape} repeats the numbers of its storage")
        return tensor

    def _parameter(self, tensor: Tensor, *rest: Any) -> Tensor:
        return tensor

    def _size(self, sizes: Any) -> tuple:
        return tuple(sizes)


class _Names(dict):
    """An OrderedDict, without the attributes that torch attaches to a state dict."""

    def __setstate__(self, state: Any) -> None:
        pass


def _read_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any("/code/" in name for name in archive.namelist()):
            raise UserError(
                f"{path}: a TorchScript program, of which no weights are read; in PyTorch, save them with "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth'), and give that file."
            )
        found = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(found) != 1:
            raise UserError(f"{path}: a zip archive that torch.save did not write; it has no single data.pkl.")
        root = found[0].removesuffix("data.pkl")
        order = (
            ">" if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big" else "<"
        )
        with archive.open(found[0]) as file:
            unpickler = _DataUnpickler(file)
            saved = unpickler.load()
        _warn(path, unpickler)
        return _resolve(saved, lambda storage: archive.read(f"{root}data/{storage.key}"), order)


def _read_legacy(path: pathlib.Path) -> Any:
    with path.open("rb") as file:
        if file.read(1) != b"\x80":  # of every pickle since protocol 2
            raise UserError(f"{path}: is no file of torch.save; a file of safetensors is named .safetensors.")
        file.seek(0)
        header = [_DataUnpickler(file).load() for _ in range(LEGACY_HEADER)]
        if header[0] != LEGACY_MAGIC:
            raise UserError(f"{path}: a pickle that torch.save did not write.")
        unpickler = _DataUnpickler(file)
        saved = unpickler.load()
        keys = _DataUnpickler(file).load()
        dtypes = {storage.key: storage.dtype for storage in _storages(saved)}
        blocks = {}
        for key in keys:
            (size,) = struct.unpack("<q", file.read(8))
            if str(key) not in dtypes:
                raise UserError(f"{path}: its block {key!r} belongs to no tensor that can be read here.")
            blocks[str(key)] = file.read(size * _dtype(dtypes[str(key)], "<").itemsize)
        _warn(path, unpickler)
        return _resolve(saved, lambda storage: blocks[storage.key], "<")


def _storages(saved: Any) -> list[Storage]:
    if isinstance(saved, Tensor):
        return [saved.storage]
    if isinstance(saved, Unread):
        return _storages(saved.state)
    children = saved.values() if isinstance(saved, dict) else saved if isinstance(saved, list | tuple) else ()
    return [storage for child in children for storage in _storages(child)]


def _resolve(saved: Any, read: Any, order: str) -> Any:
    """The same object with plain containers, and arrays in place of tensors."""
    if isinstance(saved, Tensor):
        dtype = _dtype(saved.storage.dtype, order)
        numbers = np.frombuffer(read(saved.storage), dtype)
        if numbers.size < saved.storage.size:
            raise ValueError(f"its block {saved.storage.key} is cut short")
        strides = [stride * dtype.itemsize for stride in saved.strides]
        view = np.lib.stride_tricks.as_strided(numbers[saved.offset :], saved.shape, strides, writeable=False)
        return np.array(view, dtype.newbyteorder("="), order="C")
    if isinstance(saved, dict):
        return {key: _resolve(value, read, order) for key, value in saved.items()}
    if isinstance(saved, list | tuple):
        return [_resolve(value, read, order) for value in saved]
    return saved


def _dtype(name: str, order: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name).newbyteorder(order)


def _warn(path: pathlib.Path, unpickler: _DataUnpickler) -> None:
    if unpickler.unread:
        log.warning(
            "%s: objects of these classes were left unread, and nothing of them was run: %s.",
            path,
            ", ".join(sorted(unpickler.unread)),
        )
