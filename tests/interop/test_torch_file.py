"""Files of torch.save, read without torch and without running what is in them."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_format import Global, Raw, write_legacy, write_zip

from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch.file import Unread, read_file


def example():
    rng = np.random.default_rng(0)
    return {
        "single": rng.normal(size=(3, 2, 4)).astype(np.float32),
        "transposed": np.asfortranarray(rng.normal(size=(3, 5))),
        "half": rng.normal(size=7).astype(np.float16),
        "brain": rng.normal(size=7).astype(ml_dtypes.bfloat16),
        "count": np.array(12, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_both_forms_give_the_numbers_that_were_written(write, tmp_path):
    saved = {"encoder": example(), "epoch": 30, "config": {"lr": 5e-4, "name": "run", "sizes": (1, 2)}}
    write(tmp_path / "a.pth", saved)
    read = read_file(tmp_path / "a.pth")
    assert read["epoch"] == 30 and read["config"] == {"lr": 5e-4, "name": "run", "sizes": [1, 2]}
    for name, array in example().items():
        assert read["encoder"][name].dtype == array.dtype
        np.testing.assert_array_equal(read["encoder"][name], array)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_what_torch_writes_is_read(write, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    saved = {
        "view": base.transpose(0, 2)[1:],
        "bf16": base.bfloat16(),
        "parameter": torch.nn.Parameter(base[0]),
        "shape": base.shape,
        "device": torch.device("cpu"),
    }
    torch.save(saved, tmp_path / "t.pth", _use_new_zipfile_serialization=write is write_zip)
    read = read_file(tmp_path / "t.pth")
    np.testing.assert_array_equal(read["view"], saved["view"].numpy())
    np.testing.assert_array_equal(read["bf16"].astype(np.float32), base.numpy())
    np.testing.assert_array_equal(read["parameter"], base[0].numpy())
    assert read["shape"] == [2, 3, 4] and read["device"].name == "torch.device"
    # And torch reads what the tests' own writer writes.
    write(tmp_path / "own.pth", {"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    np.testing.assert_array_equal(torch.load(tmp_path / "own.pth")["a"].numpy(), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_code_in_a_file_is_never_run(write, tmp_path, caplog):
    marker = tmp_path / "ran"
    payloads = {
        "system": Global("os", "system", f"touch {marker}"),
        "eval": Global("builtins", "eval", f"open({str(marker)!r}, 'w')"),
        "method": Global("pathlib", "Path.touch", Global("pathlib", "Path", str(marker))),
        "new": Raw(b"csubprocess\nPopen\n" + b"(X\x04\x00\x00\x00true" + b"t\x81"),
    }
    write(tmp_path / "bad.pth", payloads | {"weight": np.ones(2, np.float32)})
    read = read_file(tmp_path / "bad.pth")
    assert not marker.exists()
    names = {"os.system", "builtins.eval", "pathlib.Path.touch", "subprocess.Popen"}
    assert {read[name].name for name in payloads} == names
    np.testing.assert_array_equal(read["weight"], np.ones(2))
    assert "os.system" in caplog.text


def test_settings_of_unknown_classes_keep_their_state(tmp_path):
    config = Raw(b"cargparse\nNamespace\n)\x81}X\x08\x00\x00\x00token_hwK\x08sb")
    write_zip(tmp_path / "a.pth", {"config": config})
    read = read_file(tmp_path / "a.pth")["config"]
    assert isinstance(read, Unread) and read.state == {"token_hw": 8}


def test_a_file_cannot_alter_what_reads_the_next_one(tmp_path):
    # BUILD on the functions and types that the reader hands out.
    for target in (
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",
    ):
        attack = Raw(target + b"(N}X\x08\x00\x00\x00__call__K\x01stb")
        write_zip(tmp_path / "bad.pth", {"x": attack})
        with pytest.raises(UserError, match="cannot be read"):
            read_file(tmp_path / "bad.pth")
    write_zip(tmp_path / "good.pth", {"a": np.arange(3.0)})
    np.testing.assert_array_equal(read_file(tmp_path / "good.pth")["a"], np.arange(3.0))


@pytest.mark.parametrize(
    "offset, shape, strides",
    [(0, (5,), (1,)), (4, (1,), (1,)), (0, (2,), (4,)), (0, (10**9,), (0,)), (0, (2,), (-1,)), (0, (2,), (1, 1))],
)
def test_tensors_beyond_their_storage_are_refused(offset, shape, strides, tmp_path):
    storage = Raw(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ")
    tensor = Global("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, {})
    write_zip(tmp_path / "bad.pth", {"x": tensor})
    with zipfile.ZipFile(tmp_path / "bad.pth", "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path / "bad.pth")


def test_damaged_and_foreign_files_are_named(tmp_path):
    write_zip(tmp_path / "a.pth", example())
    whole = (tmp_path / "a.pth").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x02garbage", b"some text", b"PK\x03\x04"):
        (tmp_path / "b.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"b\.pth"):
            read_file(tmp_path / "b.pth")
    np.savez(tmp_path / "c.npz", a=np.ones(2))
    with pytest.raises(UserError, match=r"torch\.save did not write"):
        read_file(tmp_path / "c.npz")
    with pytest.raises(UserError, match="no such file"):
        read_file(tmp_path / "none.pth")


def test_numbers_of_types_that_are_not_read_are_named(tmp_path):
    storage = Raw(
        b"(X\x07\x00\x00\x00storagectorch\nComplexFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    )
    write_zip(tmp_path / "odd.pth", {"w": Global("torch._utils", "_rebuild_tensor_v2", storage, 0, (4,), (1,))})
    with pytest.raises(UserError, match=r"holds tensors in a torch\.ComplexFloatStorage.*save them as float32"):
        read_file(tmp_path / "odd.pth")
