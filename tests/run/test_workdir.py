"""A workdir is one process's at a time, where the file system can see to that."""

import errno
import fcntl
import os
import shutil

import pytest

from hamjepa_jax import config as config_lib
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import setup
from hamjepa_jax.run import workdir as workdir_lib
from hamjepa_jax.run.workdir import claim
from hamjepa_jax.train import train, train_seeds


def test_a_second_claim_is_refused_and_a_closed_one_frees_the_folder(tiny_config, tmp_path):
    with claim(tmp_path, tiny_config, "images"):
        with pytest.raises(UserError, match="another run is using it"), claim(tmp_path, tiny_config, "images"):
            pass
    with claim(tmp_path, tiny_config, "images"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(code, tiny_config, tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = rf"cannot lock files \({os.strerror(code)}\).*choose a folder on another"
    with pytest.raises(UserError, match=message), claim(tmp_path, tiny_config, "images"):
        pass


def test_a_run_that_goes_on_is_not_finished(tiny_config, tmp_path):
    (tmp_path / workdir_lib.FINISHED_FILE).touch()
    with claim(tmp_path, tiny_config, "images"):
        assert not (tmp_path / workdir_lib.FINISHED_FILE).exists()


def test_a_workdir_that_was_moved_away_gets_its_config_where_the_run_goes_on_writing(tiny_config, tmp_path):
    workdir = tmp_path / "run"
    with claim(workdir, tiny_config, "images"):
        workdir.rename(tmp_path / "moved")
        (workdir / "checkpoints").mkdir(parents=True)
    assert workdir_lib.read_record(workdir) == workdir_lib.read_record(tmp_path / "moved")
    with claim(workdir, tiny_config, "images"):
        shutil.rmtree(workdir)
    assert not workdir.exists()


def test_another_config_is_refused_before_any_image_is_fetched(tiny_config, tmp_path, monkeypatch):
    with claim(tmp_path / "run", config_lib.complete(tiny_config), "aa"):
        pass
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    monkeypatch.setattr(setup, "open_source", lambda *_, **__: pytest.fail("opened"))
    tiny_config.data.source = "cifar100:"
    tiny_config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"belongs to another run; it differs in optimizer\.learning_rate"):
        train(tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match=r"belongs to another run"):
        train_seeds([tiny_config], [tmp_path / "run"], source=None)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
