"""Configs by name: those of the package, in any folder, and config files of one's own that are built on them."""

import pytest

from hamjepa_jax.config import default_config, read_config, shipped
from hamjepa_jax.config.shipped import names, shipped_file
from hamjepa_jax.errors import UserError


def test_a_name_is_the_file_of_the_clone_or_the_wheel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"quickstart", "cifar100", "imagenet100", "tin100"} <= set(names())
    assert not {"__init__", "common"} & set(names())
    for name in names():
        assert read_config(name).to_dict() == read_config(shipped_file(name)).to_dict() == shipped(name).to_dict()


def test_arguments_follow_a_name_or_a_file_whose_folder_has_a_colon(tmp_path):
    assert read_config("tin100:method=mlp,source=arrays:a.py").data.source == "arrays:a.py"
    assert shipped("cifar100_mlp", "epochs=3").train.epochs == 3
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "own.py").write_text(shipped_file("cifar100").read_text())
    assert read_config(f"{tmp_path}/a:b/own.py").train.epochs == 30
    config = read_config(f"{tmp_path}/a:b/own.py:epochs=3,source=folder:DIR")
    assert config.train.epochs == 3 and config.data.source == "folder:DIR"


def test_a_file_of_one_s_own_goes_before_a_name_and_is_built_on_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        "from hamjepa_jax.config import shipped\ndef get_config(arg=None):\n    config = shipped('cifar100', arg)\n"
    )
    (tmp_path / "cifar100.py").write_text(f"{text}    config.seed = 7\n    return config\n")
    assert read_config("cifar100.py:epochs=2").seed == 7 and read_config("cifar100.py:epochs=2").train.epochs == 2
    assert read_config("cifar100").seed == 0  # a name has no suffix
    (tmp_path / "older.py").write_text(
        "from configs import common\n\nget_config = lambda arg=None: common.get_config()\n"
    )
    assert read_config("older.py").to_dict() == default_config().to_dict()


@pytest.mark.parametrize(
    "text, message",
    [
        ("quickstar", r"--config quickstar: no such config; did you mean quickstart\? The package has cifar100,"),
        ("configs/quickstart.py", r"no such file; --config=quickstart is the one that comes with the package"),
        ("configs/own.py", r"--config configs/own.py: no such file\.$"),
        ("cifar100:epoch=3", r"'epoch=3'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_config(text)
