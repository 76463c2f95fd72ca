"""Images that cannot be decoded, in a whole run: of training images some are put up with, of test images none."""

import json

import pytest
import tiny

from hamjepa_jax.errors import UserError
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.train import train


@pytest.fixture
def config(tmp_path, quick_config):
    """A run on 2 × 12 training and 2 × 4 test images of a folder."""
    quick_config.data.source = tiny.photographs(tmp_path / "photos", train=12, val=4)
    quick_config.data.store, quick_config.data.eval_resize, quick_config.data.max_broken_share = "stream", 8, 0.1
    quick_config.train.epochs, quick_config.optimizer.warmup = 2, "0 steps"
    return quick_config


@pytest.mark.slow
def test_a_run_with_a_broken_training_image_is_that_without_it_in_evaluation(config, tmp_path, caplog):
    broken = tmp_path / "photos" / "train" / "cat" / "05.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    config.evaluate.references = ("pixels",)
    found = train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == found["step"] == 2
    assert caplog.text.count(f"the evaluation leaves out {broken}") == 1
    # Raw pixels know nothing of the training: the numbers must be those of the folder without the file.
    broken.unlink()
    config.evaluate.every = ""
    assert train(config, tmp_path / "without")["pixels"] == found["pixels"]


def test_a_broken_test_image_ends_the_run_with_what_was_trained_saved(config, tmp_path):
    broken = tmp_path / "photos" / "val" / "dog" / "00.png"
    broken.write_bytes(b"")
    config.checkpoint.every = "1000 steps"
    with pytest.raises(UserError, match=rf"{broken}.*Repair or remove it"):
        train(config, tmp_path / "run")
    with open_checkpoints(config, tmp_path / "run") as checkpoints:
        assert checkpoints.steps() == [1]
