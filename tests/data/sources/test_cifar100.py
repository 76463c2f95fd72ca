"""CIFAR-100 in every form in which users have it, from tiny archives of the official layout."""

import hashlib
import http.server
import io
import pathlib
import pickle
import tarfile
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hamjepa_jax.data import SourceOptions, open_source
from hamjepa_jax.data.sources import cifar100
from hamjepa_jax.errors import UserError

FINE = ["apple", "aquarium_fish", "baby", "bear"]
COARSE = ["fish", "fruit", "people"]
COARSE_OF_FINE = np.asarray([1, 0, 2, 2])
SIZES = {"train": 20, "test": 8}
OPTIONS = SourceOptions(cache_dir="unused", loader="grain")


def content(part):
    """(images [n, 32, 32, 3], fine labels, coarse labels); labels unlike a range, images unlike each other."""
    rng = np.random.default_rng(len(part))
    images = rng.integers(0, 256, (SIZES[part], 32, 32, 3), dtype=np.uint8)
    fine = rng.permutation(np.arange(SIZES[part]) % 4)
    return images, fine, COARSE_OF_FINE[fine]


def rows(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def write_python(folder):
    folder.mkdir(parents=True)
    for part in SIZES:
        images, fine, coarse = content(part)
        # Byte strings as keys, as Python 2 wrote them.
        entries = {
            b"data": rows(images),
            b"fine_labels": fine.tolist(),
            b"coarse_labels": coarse.tolist(),
            b"filenames": [b"image.png"] * len(fine),
        }
        (folder / part).write_bytes(python2_pickle(entries))
    names = {b"fine_label_names": [n.encode() for n in FINE], b"coarse_label_names": [n.encode() for n in COARSE]}
    (folder / "meta").write_bytes(python2_pickle(names))
    return folder


def python2_pickle(entries):
    """Pickles with Python 2's string opcode for bytes, which the official files consist of."""

    def save_bytes(pickler, value):
        short = len(value) < 256
        head = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        pickler.write(head + len(value).to_bytes(1 if short else 4, "little") + value)
        pickler.memoize(value)

    file = io.BytesIO()
    pickler = pickle._Pickler(file, protocol=2)  # the one written in Python can be taught opcodes
    pickler.dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}
    pickler.dump(entries)
    return file.getvalue()


def write_binary(folder):
    folder.mkdir(parents=True)
    for part in SIZES:
        images, fine, coarse = content(part)
        records = np.concatenate([coarse[:, None], fine[:, None], rows(images)], axis=1).astype(np.uint8)
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n")
    (folder / "coarse_label_names.txt").write_text("\n".join(COARSE) + "\n\n")
    return folder


WRITERS = {"python": write_python, "binary": write_binary}


def pack(folder):
    """FOLDER.tar.gz beside the folder, which is removed."""
    archive = folder.with_name(folder.name + ".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return archive


def assert_is_the_data(source, *, coarse=False):
    assert source.name == ("cifar100-coarse" if coarse else "cifar100")
    for part in SIZES:
        images, fine, coarse_labels = content(part)
        split = getattr(source, part)
        assert_array_equal(split.images, images)
        assert_array_equal(split.labels, coarse_labels if coarse else fine)
        assert split.class_names == tuple(COARSE if coarse else FINE)


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "packed"])
@pytest.mark.parametrize("version", WRITERS)
def test_either_version_is_found_at_and_in_the_directory(tmp_path, version, packed):
    place = WRITERS[version](tmp_path / f"cifar-100-{version}")
    if packed:
        place = pack(place)
    for path in (tmp_path, place):
        assert_is_the_data(open_source(f"cifar100:{path}"))
        assert_is_the_data(open_source(f"cifar100:{path}?labels=coarse"), coarse=True)
        assert_is_the_data(open_source(f"cifar100:{path}?labels=fine"))


def test_fewer_training_images_are_the_first_of_every_class_in_the_archive_s_order(tmp_path):
    place, (images, fine, _) = write_python(tmp_path / "cifar-100-python"), content("train")
    by_class = [np.flatnonzero(fine == c).tolist() for c in range(4)]
    rows = sorted([row for r in by_class for row in r[:2]] + sorted(r[2] for r in by_class)[:2])
    few, test = open_source(f"cifar100:{place}?train=10").train, open_source(f"cifar100:{place}?train=10").test
    assert_array_equal(few.images, images[rows])
    assert_array_equal(few.labels, fine[rows])
    assert len(test) == SIZES["test"]
    coarse = open_source(f"cifar100:{place}?labels=coarse&train=9").train
    assert np.bincount(coarse.labels).tolist() == [3, 3, 3]
    assert_is_the_data(open_source(f"cifar100:{place}?train=20"))


def test_both_versions_have_one_fingerprint(tmp_path):
    prints = {open_source(f"cifar100:{write(tmp_path / name)}").fingerprint() for name, write in WRITERS.items()}
    assert len(prints) == 1


def test_an_empty_directory_means_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_python(tmp_path / "cache" / "hamjepa_jax" / "cifar-100-python")
    assert_is_the_data(open_source("cifar100:"))
    write_binary(tmp_path / "other" / "cifar-100-binary")
    assert_is_the_data(open_source("cifar100:?labels=coarse", cache_dir=str(tmp_path / "other")), coarse=True)


@pytest.mark.parametrize("known", [True, False], ids=["right checksum", "wrong checksum"])
def test_an_absent_archive_is_fetched_and_verified(tmp_path, known):
    served = pack(write_python(tmp_path / "server" / "cifar-100-python"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served.parent)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.md5(served.read_bytes() if known else b"").hexdigest()
    archive = cifar100.Archive(f"http://127.0.0.1:{server.server_port}/{served.name}", f"md5:{digest}")
    target = tmp_path / "data" / served.name
    try:
        if known:
            assert_is_the_data(cifar100.open_cifar100(str(target.parent), OPTIONS, archive=archive))
            assert target.read_bytes() == served.read_bytes()
        else:
            with pytest.raises(UserError, match="checksum"):
                cifar100.open_cifar100(str(target.parent), OPTIONS, archive=archive)
            assert not target.exists()
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_network_the_user_is_told_which_file_to_put_where(tmp_path):
    archive = cifar100.Archive("http://127.0.0.1:9/cifar-100-python.tar.gz", "md5:0")
    target = tmp_path / "d" / "cifar-100-python.tar.gz"
    with pytest.raises(UserError) as error:
        cifar100.open_cifar100(str(target.parent), OPTIONS, archive=archive)
    assert f"download {archive.url} elsewhere and put it at {target}." in str(error.value)
    assert str(error.value).startswith(f'data.source "cifar100:{target.parent}"') and "\n" not in str(error.value)


def test_the_official_address_is_the_default():
    assert cifar100.ARCHIVE.url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert cifar100.ARCHIVE.known_hash == "md5:eb9058c3a382ffc7106e4002c42a8d85"


@pytest.mark.parametrize("encoding", ["bytes", "latin1"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_archives_pickled_again_by_python_3_are_read(tmp_path, encoding, protocol):
    folder = write_python(tmp_path / "cifar-100-python")
    for file in folder.iterdir():
        entries = pickle.loads(file.read_bytes(), encoding=encoding)
        file.write_bytes(pickle.dumps(entries, protocol=protocol))
    assert_is_the_data(open_source(f"cifar100:{tmp_path}"))


# -- Refusals ---------------------------------------------------------------------------------------------


def test_unknown_options_and_missing_files_are_refused(tmp_path):
    for option in ("labels=medium", "train=0", "train=-3", "train=", "train=1.5", "test=10"):
        with pytest.raises(
            UserError, match=f'unknown option "{option}"; expected labels=fine, labels=coarse, or tr'
        ):
            open_source(f"cifar100:{tmp_path}?labels=fine&{option}")
    write_python(tmp_path / "full" / "cifar-100-python")
    with pytest.raises(UserError, match="there are 20 training images; ask for as many or fewer"):
        open_source(f"cifar100:{tmp_path / 'full'}?train=21")
    with pytest.raises(UserError, match="no such file"):
        open_source(f"cifar100:{tmp_path / 'cifar-100-python.tar.gz'}")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="expected a folder"):
        open_source(f"cifar100:{tmp_path / 'notes.txt'}")


@pytest.mark.parametrize("version, missing", [("python", "meta"), ("binary", "coarse_label_names.txt")])
def test_an_incomplete_folder_is_refused_with_what_it_lacks(tmp_path, version, missing):
    folder = WRITERS[version](tmp_path / f"cifar-100-{version}")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"lacks {missing}; remove it and unpack"):
        open_source(f"cifar100:{tmp_path}?labels=coarse")


def damage_cut_archive(tmp_path):
    archive = pack(write_python(tmp_path / "cifar-100-python"))
    archive.write_bytes(archive.read_bytes()[:-5000])


def damage_not_an_archive(tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"<html>try again later</html>")


def damage_cut_pickle(tmp_path):
    file = write_python(tmp_path / "cifar-100-python") / "train"
    file.write_bytes(file.read_bytes()[:-1000])


def damage_cut_records(tmp_path):
    file = write_binary(tmp_path / "cifar-100-binary") / "test.bin"
    file.write_bytes(file.read_bytes()[:-1])


def damage_label_range(tmp_path):
    file = write_binary(tmp_path / "cifar-100-binary") / "train.bin"
    file.write_bytes(b"\x00\x63" + file.read_bytes()[2:])


@pytest.mark.parametrize(
    "damage",
    [damage_cut_archive, damage_not_an_archive, damage_cut_pickle, damage_cut_records, damage_label_range],
    ids=lambda f: f.__name__.removeprefix("damage_"),
)
def test_damaged_files_are_refused(tmp_path, damage):
    damage(tmp_path)
    with pytest.raises(UserError, match=r"is damaged \(.*remove it and unpack or download"):
        open_source(f"cifar100:{tmp_path}")


@pytest.mark.parametrize(
    "file, key, value",
    [
        ("train", "fine_labels", None),
        ("train", "fine_labels", 10**20),
        ("train", "fine_labels", 0.5),
        ("train", "fine_labels", True),
        ("meta", "fine_label_names", 1),
        ("meta", "fine_label_names", "same"),
    ],
)
def test_entries_of_another_kind_are_refused(tmp_path, file, key, value):
    path = write_python(tmp_path / "cifar-100-python") / file
    entries = pickle.loads(path.read_bytes(), encoding="latin1")
    entries[key] = [value] * len(entries[key])
    path.write_bytes(pickle.dumps(entries))
    with pytest.raises(UserError, match=r"is damaged \("):
        open_source(f"cifar100:{tmp_path}")


class Malice:
    """Pickled as a call of pathlib.Path.touch, which stands for worse."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_a_pickle_that_calls_functions_is_refused_uncalled(tmp_path):
    folder = write_python(tmp_path / "cifar-100-python")
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": Malice(tmp_path / "touched")}))
    with pytest.raises(UserError, match=r"damaged .*refers to"):
        open_source(f"cifar100:{tmp_path}")
    assert not (tmp_path / "touched").exists()
