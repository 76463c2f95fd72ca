"""Sources of images: what they hold, and what is refused with which sentence."""

import zipfile

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal

from hamjepa_jax.data import ArraySplit, ShapeSplit, Source, check_source, is_encoded, open_source
from hamjepa_jax.errors import UserError


def arrays(**changes):
    """A valid set of arrays: 12 training and 6 test images of three classes."""
    rng = np.random.default_rng(0)
    valid = dict(
        train_images=rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
        train_labels=np.arange(12) % 3,
        test_images=rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        test_labels=np.arange(6, dtype=np.uint8) % 3,
        class_names=np.asarray(["cat", "dog", "eel"]),
    )
    return {key: value for key, value in (valid | changes).items() if value is not None}


def save(tmp_path, **changes):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changes))
    return f"arrays:{path}"


# -- The interface ----------------------------------------------------------------------------------------


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r'data.source "cifer:x": unknown kind; .*arrays:, cifar100:, clips:'):
        open_source("cifer:x")


def test_a_fingerprint_is_of_the_content_alone():
    def source(**changes):
        a = arrays(**changes)
        splits = (
            ArraySplit(a[f"{part}_images"], a[f"{part}_labels"].astype(np.int32), tuple(a["class_names"]))
            for part in ("train", "test")
        )
        return Source("any", *splits)

    reference = source().fingerprint()
    assert len(reference) == 16 and int(reference, 16) >= 0
    assert source().fingerprint() == reference
    other_image = arrays()["train_images"].copy()
    other_image[7, 2, 2, 1] ^= 1
    for change in (
        dict(train_images=other_image),
        dict(test_labels=np.asarray([0, 1, 2, 0, 2, 1])),
        dict(class_names=np.asarray(["cat", "dog", "elk"])),
        dict(train_images=arrays()["train_images"].reshape(12, 4, 5, 3)),
        dict(train_images=arrays()["train_images"][:11], train_labels=np.arange(11) % 3),
    ):
        assert source(**change).fingerprint() != reference, change


def test_a_split_refuses_other_shapes_and_types():
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.zeros(4, np.int32)
    split = ArraySplit(images, labels, ("a",))
    assert len(split) == 4 and split.image(3).shape == (2, 2, 3)
    for wrong in ((images.astype(np.float32), labels), (images[..., 0], labels), (images, labels[:3])):
        with pytest.raises(ValueError, match="must be"):
            ArraySplit(*wrong, ("a",))
    with pytest.raises(ValueError, match="int64"):
        ArraySplit(images, labels.astype(np.int64), ("a",))


@pytest.mark.parametrize(
    "part, changes, message",
    [
        ("train", dict(labels=[0, 1, 2, -1]), "the training labels run from -1 to 2, but class_names has 3 names"),
        ("train", dict(labels=[0, 1, 3, 2]), r"the training labels run from 0 to 3, .*expected labels 0 \.\.\. 2"),
        ("test", dict(labels=[0, 1, 2, 7]), "the test labels run from 0 to 7"),
        ("test", dict(images=0, labels=[]), "the test split has no images; it needs 2 or more"),
        ("test", dict(images=1, labels=[0]), "the test split has 1 image; it needs 2 or more"),
        ("train", dict(images=0, labels=[]), "the training split has no images"),
        ("test", dict(names=("b", "a", "c")), 'another order: class 0 is "a" in training and "b" in test'),
        ("test", dict(names=("a", "b", "x")), r'3 class_names and the test split 3, and they differ \("c", "x"\)'),
        ("test", dict(names=("a", "b")), "3 class_names and the test split 2"),
    ],
)
def test_a_source_that_cannot_be_evaluated_is_refused(part, changes, message):
    def split(images=4, labels=(0, 1, 2, 1), names=("a", "b", "c")):
        return ArraySplit(np.zeros((images, 2, 2, 3), np.uint8), np.asarray(labels, np.int32), names)

    check_source(Source("mine", split(), split()))
    if changes.get("names") == ("a", "b"):
        changes = changes | dict(labels=[0, 1, 1, 0])
    splits = {"train": split(), "test": split()} | {part: split(**changes)}
    with pytest.raises(UserError, match=f'data.source "mine": .*{message}'):
        check_source(Source("mine", **splits))


def test_the_sources_of_the_package_pass_the_check(tmp_path):
    for spec in (
        "digits",
        "shapes:10?test=10",
        "synthetic:10",
        save(tmp_path),
        f"folder:{photos.image_folder(tmp_path / 'photos')}",
    ):
        check_source(open_source(spec))


def test_a_shape_split_has_a_length_and_a_shape_alone():
    split = ShapeSplit(7, 5, 4)
    assert len(split) == 7 and split.image_shape == (5, 4, 3) and not is_encoded(split)
    assert (
        ArraySplit(np.zeros((7, 5, 4, 3), np.uint8), np.zeros(7, np.int32), ("a",)).image_shape == split.image_shape
    )
    with pytest.raises(ValueError, match="no images"):
        split.image(0)


# -- digits, synthetic ------------------------------------------------------------------------------------


def test_digits_are_split_the_same_in_every_class():
    source = open_source("digits")
    assert (len(source.train), len(source.test)) == (1442, 355)
    assert source.train.images.shape == (1442, 8, 8, 3) and source.train.class_names == tuple("0123456789")
    assert source.train.images.max() == 255 and source.train.images.min() == 0
    share = np.bincount(source.test.labels) / np.bincount(source.train.labels)
    assert (np.abs(share - 0.25) < 0.01).all()
    assert source.fingerprint() == open_source("digits:").fingerprint()
    with pytest.raises(UserError, match='write "digits"'):
        open_source("digits:8x8")


def test_synthetic_images_are_repeatable_and_their_classes_visible():
    source = open_source("synthetic:200x24")
    assert source.train.images.shape == (200, 24, 24, 3) and len(source.test) == 20
    assert source.fingerprint() == open_source("synthetic:200x24").fingerprint()
    assert open_source("synthetic:10").train.images.shape == (10, 32, 32, 3)
    # The nearest class mean of the training images names the class of a test image.
    train = source.train.images.reshape(200, -1).astype(float)
    means = np.stack([train[source.train.labels == c].mean(0) for c in range(10)])
    test = source.test.images.reshape(20, -1).astype(float)
    nearest = np.argmin(((test[:, None] - means[None]) ** 2).sum(-1), axis=1)
    assert_array_equal(nearest, source.test.labels)


@pytest.mark.parametrize("rest", ["", "x32", "9", "100x0", "100x32x3", "many"])
def test_synthetic_refuses_what_it_cannot_read(rest):
    with pytest.raises(UserError, match="expected synthetic:N or synthetic:NxSIZE"):
        open_source(f"synthetic:{rest}")


# -- arrays -----------------------------------------------------------------------------------------------


def test_arrays_are_read_as_they_were_written(tmp_path):
    source = open_source(save(tmp_path))
    expected = arrays()
    assert source.name == "mine"
    assert_array_equal(source.train.images, expected["train_images"])
    assert_array_equal(source.test.labels, expected["test_labels"])
    assert source.train.labels.dtype == source.test.labels.dtype == np.int32
    assert source.train.class_names == source.test.class_names == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(test_labels=None), "lacks test_labels; expected train_images"),
        (dict(train_images=np.zeros((12, 5, 4, 3))), r"train_images is float64 \(12, 5, 4, 3\); expected uint8"),
        (dict(train_images=np.zeros((12, 3, 5, 4), np.uint8)), r"train_images is uint8 \(12, 3, 5, 4\); expected"),
        (dict(test_images=np.zeros((0, 5, 4, 3), np.uint8)), "test_images is .* n > 0"),
        (dict(test_images=np.zeros((6, 4, 4, 3), np.uint8)), "must be of one size"),
        (dict(train_labels=np.arange(11) % 3), "train_labels has 11 entries for 12 images"),
        (dict(train_labels=np.arange(12) % 3 / 1.0), "train_labels is float64 .* whole numbers"),
        (dict(train_labels=np.arange(12) % 4), "train_labels runs from 0 to 3, but class_names has 3 names"),
        (dict(test_labels=np.arange(6) - 1), "test_labels runs from -1 to 4"),
        (dict(train_labels=np.arange(12) % 2), 'class "eel" has no training image'),
        (dict(class_names=np.asarray(["a", "b", "a"])), "class_names .* different strings"),
        (dict(class_names=np.arange(3)), "class_names .* different strings"),
        (dict(class_names=np.asarray(["a", "b", None], object)), "class_names is no plain array"),
        (dict(train_images=np.asarray([None] * 12, object)), "train_images is no plain array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    spec = save(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        open_source(spec)
    assert str(error.value).startswith(f'data.source "{spec}": ') and "\n" not in str(error.value)


def test_files_that_are_no_archives_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        open_source(f"arrays:{tmp_path / 'none.npz'}")
    with pytest.raises(UserError, match=r"expected arrays:FILE\.npz"):
        open_source("arrays:")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"not an \.npz archive"):
        open_source(f"arrays:{tmp_path / 'one.npy'}")


def test_a_damaged_archive_is_refused(tmp_path):
    spec = save(tmp_path)
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("train_images.npy").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 400] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged .*write it again"):
        open_source(spec)


@pytest.mark.parametrize(
    "header, message",
    [
        ("[", "train_images is no plain array"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 9)}", "train_images is no plain array"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 9)}", "does not fit into memory"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, header, message):
    path = tmp_path / "mine.npz"
    written = f"{header:<117}\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00" + len(written).to_bytes(2, "little") + written)
    with pytest.raises(UserError, match=message):
        open_source(f"arrays:{path}")
