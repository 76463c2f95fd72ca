"""The command transfer around its measurements: what was measured before, its table, and mistakes."""

import json
import re

import pytest
import tiny
from PIL import Image

from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import for_images
from hamjepa_jax.transfer import measure
from hamjepa_jax.transfer.__main__ import main
from hamjepa_jax.transfer.names import source_spec

ABOUT = {"workdir": "runs/a", "step": 6, "readout": "qp", "weights": "ab12"}


def cell(seed=0, source="dtd", fingerprint="f1", recipe=None, **metrics):
    found = {"source": source, "shots": "all", "seed": seed, "fingerprint": fingerprint, "metrics": metrics}
    return found if recipe is None else found | {"recipe": recipe}


def begun(tmp_path, content, about=ABOUT):
    (tmp_path / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return measure._begun(tmp_path / "results.json", about)


def test_labels_a_class_are_taken_once():
    """Measured twice, a draw would count twice in the deviation."""
    assert measure._shots(["5", "05", "all", "5", "all"]) == [5, "all"]
    for text in ("0", "²", "-1", "1.5", "some"):
        with pytest.raises(
            UserError, match=f'--shots {text}: give whole numbers of images a class from 1, or "all"'
        ):
            measure._shots(["all", text])


def test_numbers_of_the_same_weights_are_gone_on_with_wherever_the_run_is_now(tmp_path):
    cells = [cell(knn=0.5)]
    moved = begun(tmp_path, {"run": ABOUT | {"workdir": "/elsewhere/a"}, "cells": cells})
    assert moved["cells"] == cells and moved["run"] == ABOUT
    earlier = {name: value for name, value in ABOUT.items() if name != "weights"}  # As earlier versions wrote it.
    assert begun(tmp_path, {"run": earlier, "cells": cells})["cells"] == cells
    for other, name in (
        ({"weights": "cd34"}, "other weights"),
        ({"step": 3, "weights": "cd34"}, "another step"),
        ({"readout": "q"}, "another readout"),
    ):
        with pytest.raises(UserError, match=rf"results.json: is of {name} .*choose another --out"):
            begun(tmp_path, {"run": ABOUT | other, "cells": cells})
    with pytest.raises(UserError, match=r"is of another workdir \(runs/b, not runs/a\)"):
        begun(tmp_path, {"run": earlier | {"workdir": "runs/b"}, "cells": cells})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"run": {}}', '{"run": 3, "cells": []}', '{"run": {}, "cells": 3}',
     '{"run": {}, "cells": [{}]}', '{"run": {}, "cells": [3]}',
     '{"run": {}, "cells": [{"source": "a", "shots": 1, "seed": 0, "fingerprint": "f", "metrics": 3}]}'],
)  # fmt: skip
def test_a_damaged_file_is_said_to_be_one(tmp_path, content):
    with pytest.raises(UserError, match=r"results.json: is damaged; move it away, or choose another --out"):
        begun(tmp_path, content)


def table(tmp_path, cells):
    wanted = [(c["source"], c["shots"], c["seed"], c["fingerprint"]) for c in cells if c["source"] == "dtd"]
    measure._write_report(tmp_path, {"run": ABOUT, "cells": cells}, wanted)
    return (tmp_path / "report.md").read_text()


def test_the_table_tells_the_recipe_of_its_own_numbers(tmp_path, caplog):
    def recipe(rate):
        return {"epochs": 30, "learning_rate": rate, "layer_decay": 0.75}

    both = [cell(seed, recipe=recipe(0.01), knn=0.5, finetune=0.75) for seed in (0, 1)]
    other = cell(source="pets", recipe=recipe(0.5), knn=0.5, finetune=0.25)
    text = table(tmp_path, [*both, other])
    assert "learning rate 0.01" in text and "| dtd | all | 50.00 ± 0.00 | 75.00 ± 0.00 | 2 |" in text
    mixed = table(tmp_path, [both[0], cell(1, recipe=recipe(0.5), knn=0.5, finetune=0.25)])
    assert "fine-tuning" not in mixed and "| dtd | all | 50.00 ± 0.00 | 2 |" in mixed
    assert "several recipes" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--sources=cifar100:nowhere"], "nowhere: holds no run"),
        (
            ["RUN", "--sources=mine"],
            "--sources mine: is none of the names cifar10, .* as in folder:mine or arrays:mine",
        ),
        (["RUN", "--sources=digits", "--readout=z"], "--readout z: this run's states have qp, q, p"),
        (["RUN", "--sources=digits", "--shots=0"], "--shots 0: give whole numbers"),
        (["RUN", "--sources=digits", "--finetune_rate=0.1"], "--finetune_rate 0.1: .* give --finetune too"),
        (["RUN", "--sources=digits", "--layer_decay=0.5"], "--layer_decay 0.5: .* give --finetune too"),
        (
            ["RUN", "--finetune", "--sources=trajectories:pendulum?train=20&test=10&frames=4&test_frames=4"],
            "--finetune: --sources trajectories:.* has clips; give images",
        ),
        (["PLAIN", "--finetune", "--sources=digits"], "--layer_decay 0.75: .*one_conv.* give --layer_decay=1"),
        (["RUN", "--sources=digits"], "is an export, which has no checkpoints"),
    ],
)
def test_mistakes_are_told_before_anything_is_made_or_fetched(
    words, message, tiny_config, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, config in (("RUN", tiny_config), ("PLAIN", tiny.quick())):
        run = tmp_path / name
        run.mkdir()
        (run / "config.json").write_text(json.dumps({"config": json.loads(config.to_json_best_effort())}))
        (run / "model.safetensors").touch()
    run = tmp_path / words[0]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (run / "transfer").exists() or "export" in message


def test_names_are_found_where_they_are_put(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    for name in ("dtd", "cars196"):
        (tmp_path / "prepared" / name).mkdir(parents=True)
    assert source_spec("dtd", str(tmp_path)) == "tfds:dtd?test=test"  # It has a validation split too.
    assert source_spec("cars", str(tmp_path)) == "tfds:cars196"
    with pytest.raises(UserError, match=r"prepare the TFDS set 'oxford_flowers102' in .*prepared"):
        source_spec("flowers", str(tmp_path))
    (tmp_path / "pets" / "train").mkdir(parents=True)
    (tmp_path / "cars.npz").touch()
    assert source_spec("pets", str(tmp_path)) == f"folder:{tmp_path / 'pets'}"
    assert source_spec("cars", str(tmp_path)) == f"arrays:{tmp_path / 'cars.npz'}"
    assert source_spec("digits", kinds=("digits",)) == "digits" and source_spec("folder:x") == "folder:x"


def test_photographs_of_another_source_are_resized_whatever_the_first_one_is(tiny_config, tmp_path):
    """It may be broken, which is told when it is read, or have the encoder's size where others do not."""
    spec = tiny.photographs(tmp_path, train=2, val=2)
    (tmp_path / "val" / "cat" / "00.png").write_bytes(b"no image")
    tiny_config.data.eval_resize = None
    assert for_images(tiny_config, open_source(spec), spec).data.eval_resize == tiny_config.data.image_size
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "cat" / "00.png")
    assert for_images(tiny_config, open_source(spec), spec).data.eval_resize == tiny_config.data.image_size == 8
