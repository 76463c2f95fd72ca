"""Images without labels: from a folder tree or a list; what they train, and what is measured of them."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from hamjepa_jax.data import check_source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import evaluate
from hamjepa_jax.evaluate.__main__ import main as evaluate_command
from hamjepa_jax.train import train


@pytest.fixture
def photos(tmp_path):
    """A tree of 40 images at several depths, a text file and a hidden image."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for i in range(40):
        folder = root / ("" if i % 3 == 0 else f"album{i % 3}/more")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10 + i % 4, 12, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    return root


def names(split):
    return {split.where(i).rsplit("/", 1)[-1] for i in range(len(split))}


def test_every_image_of_a_tree_is_in_one_split_and_the_seed_draws_which(photos):
    source = open_source(f"images:{photos}?held_out=0.2")
    check_source(source)
    assert not source.labelled and source.train.class_names == source.test.class_names == ()
    assert (len(source.train), len(source.test)) == (32, 8)
    assert names(source.train) | names(source.test) == {f"{i:02}.png" for i in range(40)}
    # No label is one of a class, least of all of the first.
    assert set(source.train.labels) == set(source.test.labels) == {-1}
    again, other = (open_source(f"images:{photos}?held_out=0.2&seed={seed}") for seed in (0, 1))
    assert again.fingerprint() == source.fingerprint() != other.fingerprint()
    assert names(other.test) != names(source.test)
    assert len(open_source(f"images:{photos}").test) == 2  # 5 % of 40, and two at the least.


def test_a_list_names_images_from_its_own_folder(photos):
    (photos / "list.txt").write_text("# a comment\n\n00.png\nalbum1/more/01.png\n 03.png \n00.png\nmissing.png\n")
    source = open_source(f"images:{photos / 'list.txt'}")
    assert len(source.train) + len(source.test) == 4  # Named twice is there once; a missing file is a broken image.
    assert names(source.train) | names(source.test) == {"00.png", "01.png", "03.png", "missing.png"}


def test_a_list_may_name_images_from_the_home_folder(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    (tmp_path / "list.txt").write_text("~/00.png\n~/03.png\nphotos/06.png\n")
    source = open_source(f"images:{tmp_path / 'list.txt'}")
    assert len(source.train) == 1 and len(source.test) == 2
    assert {split.image(i).shape for split in (source.train, source.test) for i in range(len(split))} == {
        (10, 12, 3), (12, 12, 3), (13, 12, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("images:", "no such folder or list file"),
        ("images:{0}/none", "no such folder or list file"),
        ("images:{0}/empty", r"no images \(.jpg.* in the folder"),
        ("images:{0}/notes.txt", "'no image' in the list is no image"),
        ("images:{0}/nul.txt", r"'a\\x00b.png' in the list is no image"),
        ("images:{0}/empty.txt", "the list names no images"),
        ("images:{0}/two.txt", "2 images, of which 2 would be held out"),
        ("images:{0}?held_out=1", "above 0 and below 1"),
        ("images:{0}?seed=1.5", "seed a whole number"),
        ("images:{0}?labels=x", "'labels=x' is no option; expected images:DIR"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(photos, spec, message):
    (photos / "empty").mkdir()
    (photos / "empty.txt").write_text("\n")
    (photos / "nul.txt").write_text("00.png\na\0b.png\n")
    (photos / "two.txt").write_text("00.png\n03.png\n")
    with pytest.raises(UserError, match=message) as error:
        open_source(spec.format(photos))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_trains_on_them_and_is_measured_without_labels_or_on_other_images(photos, tmp_path, capsys, caplog):
    config = tiny.quick()
    config.data.source, config.data.stored_size = f"images:{photos}?held_out=0.2", 8
    config.data.eval_resize, config.data.cache_dir = 8, str(tmp_path / "cache")
    config.optimizer.warmup, config.train.batch_size = "0 steps", 16
    config.train.steps, config.checkpoint.every, config.evaluate.every = 2, "2 steps", "2 steps"
    workdir = tmp_path / "run"
    caplog.set_level("INFO")
    found = train(config, workdir)["trained"]
    assert found["q/rankme"] > 1 and not any("knn" in key or "probe" in key for key in found)
    assert "RankMe q" in caplog.text and "set it to one of its numbers" in caplog.text
    for plot in ("learning_curve", "neighbours", "readouts"):
        assert (workdir / "plots" / f"{plot}.png").exists()
    assert "knn" not in (workdir / "metrics.jsonl").read_text()
    assert evaluate_command([str(workdir), "--few_shot=1"]) == 2
    assert "have no labels" in capsys.readouterr().err

    config.evaluate.source = "synthetic:40x12"  # Other images, of another size.
    on_labelled = evaluate(config, workdir)["trained"]
    assert "q/knn_top1_k5_cosine_majority" in on_labelled and on_labelled["q/rankme"] != found["q/rankme"]
    assert json.loads((workdir / "metrics.json").read_text())["trained"] == on_labelled
    config.evaluate.source = config.data.source
    with pytest.raises(UserError, match=r"evaluate.source .*: its images have no labels"):
        evaluate(config, workdir)
