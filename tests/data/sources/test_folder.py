"""Folders of photographs: layouts, and everything that can be wrong with files."""

import os
import pathlib
import unicodedata

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hamjepa_jax.data import BrokenImage, open_source
from hamjepa_jax.errors import UserError


def opened(root):
    return open_source(f"folder:{root}")


def test_classes_files_and_labels_are_in_order(tmp_path):
    source = opened(photos.image_folder(tmp_path / "mine", train=4, val=2))
    assert source.name == "mine"
    assert source.train.class_names == source.test.class_names == ("cat", "dög", "eel")
    assert len(source.train) == 12 and len(source.test) == 6
    assert source.train.labels.dtype == np.int32
    assert_array_equal(source.train.labels, np.repeat([0, 1, 2], 4))
    assert source.train.paths[:2] == ("train/cat/cat_0.JPEG", "train/cat/cat_1.JPEG")
    assert source.train.image(0).shape == (30, 48, 3)
    assert source.train.encoded(5) == pathlib.Path(source.train.where(5)).read_bytes()


def test_nested_files_any_case_of_extension_and_links_are_found(tmp_path):
    root = photos.image_folder(tmp_path, train=1, val=1)
    data = photos.encode(photos.picture(9))
    photos.write(root / "train/cat/deep/er/X.JpG", data)
    photos.write(root / "train/cat/b.PNG", photos.encode(photos.picture(9), "PNG"))
    photos.write(root / "train/cat/b.webp", photos.encode(photos.picture(9), "WEBP"))
    for name in ("notes.txt", "._cat_0.JPEG", ".thumbs/a.jpg"):
        photos.write(root / "train/cat" / name, b"none of ours")
    (root / "train/cat/link.jpg").symlink_to(photos.write(tmp_path / "elsewhere.bin", data))
    train = opened(root).train
    found = [os.path.basename(train.paths[i]) for i in np.flatnonzero(train.labels == 0)]
    assert found == ["b.PNG", "b.webp", "cat_0.JPEG", "X.JpG", "link.jpg"]


def test_a_split_may_lie_in_several_folders(tmp_path):
    whole = photos.image_folder(tmp_path / "a", train=2, val=1)
    parts = tmp_path / "b"
    parts.mkdir()
    (whole / "val").rename(parts / "val.X")
    for k, name in enumerate(("cat", "dög", "eel")):
        (parts / f"train.X{k + 1}").mkdir()
        (whole / "train" / name).rename(parts / f"train.X{k + 1}" / name)
    (parts / "train.X4/cat").mkdir(parents=True)
    (parts / "train.X1/cat/cat_1.JPEG").rename(parts / "train.X4/cat/cat_1.JPEG")
    source = opened(parts)
    assert_array_equal(source.train.labels, [0, 0, 1, 1, 2, 2])
    assert source.train.paths[1] == "train.X4/cat/cat_1.JPEG" and len(source.test) == 3


def test_a_fingerprint_is_of_names_and_sizes(tmp_path):
    first = opened(photos.image_folder(tmp_path / "a")).fingerprint()
    assert opened(photos.image_folder(tmp_path / "b")).fingerprint() == first
    file = tmp_path / "b/train/cat/cat_3.JPEG"
    file.rename(file.with_name("cat_9.JPEG"))
    renamed = opened(tmp_path / "b").fingerprint()
    file.with_name("cat_9.JPEG").write_bytes(b"another size")
    assert len({first, renamed, opened(tmp_path / "b").fingerprint()}) == 3


def test_two_spellings_of_an_accent_are_one_class(tmp_path):
    photos.image_folder(tmp_path, train=1, val=1)
    (tmp_path / "val" / "dög").rename(tmp_path / "val" / unicodedata.normalize("NFD", "dög"))
    assert opened(tmp_path).test.class_names == ("cat", "dög", "eel")


def test_a_line_says_what_was_found_and_what_was_passed_over(tmp_path, caplog):
    root = photos.image_folder(tmp_path, train=2, val=1)
    caplog.set_level("INFO")
    opened(root)
    line = f"folder:{root}: 6 training and 3 test images of 3 classes in train, val"
    assert caplog.messages == [line]
    for name in ("a.bmp", "b.BMP", "README", ".hidden"):
        photos.write(root / "train/cat" / name, b"another kind of file")
    opened(root)
    others = "3 other files are passed over (2 .bmp, 1 without extension), such as train/cat/README"
    assert caplog.messages[1:] == [f"{line}; {others}"]


# -- Refusals -----------------------------------------------------------------------------------------------


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder; expected train/<class>"):
        opened(tmp_path / "none")
    with pytest.raises(UserError, match='no "train" and no "train'):
        opened(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match='no "val" or "test"'):
        opened(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match='no class folders in "train"'):
        opened(tmp_path)


@pytest.mark.parametrize("missing, there", [("train", "val"), ("val", "train")])
def test_splits_of_different_classes_are_refused_with_the_classes(tmp_path, missing, there):
    root = photos.image_folder(tmp_path, train=1, val=1)
    (root / missing / "dög" / "dög_0.JPEG").unlink()
    (root / missing / "dög").rmdir()
    with pytest.raises(UserError, match=f'class "dög" in "{there}" but not in "{missing}"'):
        opened(root)


def test_an_empty_class_is_refused_with_its_name(tmp_path):
    root = photos.image_folder(tmp_path, train=1, val=1)
    photos.write(root / "train/fox/readme.txt", b"soon")
    with pytest.raises(UserError, match=r'no images .* in class "fox" of train'):
        opened(root)


# -- Hostile files ------------------------------------------------------------------------------------------


def test_links_in_a_circle_end(tmp_path):
    root = photos.image_folder(tmp_path, train=2, val=1)
    (root / "train/cat/self").symlink_to(root / "train/cat")
    (root / "train/cat/up").symlink_to(root / "train")  # would make cats of all classes
    (root / "train/cat/top").symlink_to(root)
    (root / "train/cat/ring.jpg").symlink_to(root / "train/cat/ring.jpg")
    source = opened(root)
    assert_array_equal(source.train.labels, [0, 0, 0, 1, 1, 2, 2])
    with pytest.raises(BrokenImage, match="cannot be read"):
        source.train.image(2)


def test_every_broken_file_is_named_and_every_strange_one_is_shown(tmp_path, monkeypatch):
    root = photos.image_folder(tmp_path, train=1, val=1)
    whole = photos.encode(photos.picture(0, 300, 300))
    hostile = {
        "a truncated.jpg": whole[: len(whole) // 2],
        "b zero bytes.jpg": b"",
        "c text.jpg": b"not a picture at all " * 9,
        "d unreadable.jpg": whole,
        "e cmyk.jpg": photos.encode(Image.fromarray(photos.picture(0)).convert("CMYK")),
        "f sixteen bits.png": photos.encode(Image.fromarray(np.full((9, 9), 40000, np.uint16)), "PNG"),
        "g one pixel.png": photos.encode(photos.picture(0, 1, 1), "PNG"),
        "h long.jpg": photos.encode(photos.picture(0, 10, 20000)),
        "i png named.jpg": photos.encode(photos.picture(0), "PNG"),
        "j ünïcode 図.jpg": whole,
    }
    for name, data in hostile.items():
        photos.write(root / "train/aaa" / name, data)
    photos.write(root / "val/aaa/fine.jpg", whole)
    train = opened(root).train
    real = open

    def refusing(path, *args, **kwargs):  # root may read everything, so permissions are simulated
        if "unreadable" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refusing)
    shapes = {}
    for i, name in enumerate(hostile):
        assert train.where(i) == str(root / "train/aaa" / name)
        try:
            shapes[name[0]] = train.image(i).shape
        except BrokenImage as error:
            shapes[name[0]] = str(error)
    assert "truncated" in shapes["a"] and shapes["b"] == "the file is empty"
    assert shapes["c"] == "it is no JPEG, PNG or WebP"
    assert shapes["d"] == "it cannot be read (Permission denied)"
    assert shapes["e"] == shapes["i"] == (40, 56, 3) and shapes["f"] == (9, 9, 3)
    assert shapes["g"] == (1, 1, 3) and shapes["h"] == (10, 20000, 3) and shapes["j"] == (300, 300, 3)
