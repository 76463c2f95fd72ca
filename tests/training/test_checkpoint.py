"""Checkpoints: round trips, retention, and damage of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.training.checkpoint import Checkpoints


def state_of(value):
    return {"weights": jnp.full((300, 50), value) + jnp.arange(50.0)[None, :], "step": jnp.int32(value)}


def opened(path, **options):
    return Checkpoints(path, **({"keep_latest": 2, "keep_best": 1, "best_metric": "accuracy"} | options))


def like():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_of(0))


def saved(path, *steps, metrics=None, **options):
    checkpoints = opened(path, **options)
    for step in steps:
        checkpoints.save(step, state_of(step), (metrics or {}).get(step, {}))
    checkpoints.close()


def restored_step(path):
    checkpoints = opened(path)
    state = checkpoints.restore(like())
    checkpoints.close()
    np.testing.assert_array_equal(state["weights"], state_of(int(state["step"]))["weights"])
    return int(state["step"])


def test_round_trip_and_nothing_to_restore(tmp_path):
    assert opened(tmp_path).restore(like()) is None
    saved(tmp_path, 3)
    assert restored_step(tmp_path) == 3


def test_the_latest_and_the_best_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, 5, metrics={2: {"accuracy": 0.9}, 4: {"accuracy": 0.5}})
    checkpoints = opened(tmp_path)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2


def test_a_certain_step(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoints = opened(tmp_path)
    assert int(checkpoints.restore(like(), 1)["step"]) == 1
    with pytest.raises(UserError, match=r"checkpoint 7: .* it has 1, 2"):
        checkpoints.restore(like(), 7)


def test_newer_checkpoints_are_dropped(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoints = opened(tmp_path)
    checkpoints.drop_after(1)
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_a_state_of_two_devices_is_put_on_one(tmp_path, caplog):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    checkpoints = opened(tmp_path)
    checkpoints.save(1, jax.device_put(state_of(1), whole), {})
    checkpoints.close()
    one = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), whole.spec)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), state_of(0))
    checkpoints = opened(tmp_path)
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        restored = checkpoints.restore(wanted)
    checkpoints.close()
    np.testing.assert_array_equal(restored["weights"], state_of(1)["weights"])
    assert "saved by processes 1 × data 2, is put on processes 1 × data 1" in caplog.text


def test_reading_leaves_a_save_in_flight_alone(tmp_path):
    saved(tmp_path, 1)
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = opened(tmp_path, read_only=True)
    assert int(reader.restore(like())["step"]) == 1
    reader.close()
    assert unfinished.exists()
    saved(tmp_path, 3)
    assert not unfinished.exists()  # whoever trains on tidies up, before the first save
    assert restored_step(tmp_path) == 3


def arrays_of(step_folder):
    """The files that hold array data, largest first."""
    files = [f for f in (step_folder / "state").rglob("*") if f.is_file() and f.parent.name == "d"]
    return sorted(files, key=lambda f: f.stat().st_size, reverse=True)


def cut(folder):
    for file in arrays_of(folder):
        file.write_bytes(file.read_bytes()[:10])


def remove(folder):
    for file in arrays_of(folder):
        file.unlink()


def empty_metadata(folder):
    (folder / "state" / "_METADATA").write_text("")


@pytest.mark.parametrize("damage", [cut, remove, empty_metadata])
def test_a_damaged_newest_step_is_named_and_the_one_before_is_used(damage, tmp_path, caplog):
    saved(tmp_path, 1, 2)
    damage(tmp_path / "2")
    with caplog.at_level("WARNING", logger="hamjepa_jax"):
        assert restored_step(tmp_path) == 1
    assert f"{tmp_path / '2'} is damaged" in caplog.text


def test_a_flipped_bit_anywhere_in_the_arrays_changes_nothing_or_is_found(tmp_path):
    saved(tmp_path, 1, 2)
    rng = np.random.default_rng(0)
    found = 0
    for file in arrays_of(tmp_path / "2"):
        content = file.read_bytes()
        for position in rng.integers(0, len(content), 3):
            flipped = bytearray(content)
            flipped[position] ^= 16
            file.write_bytes(bytes(flipped))
            found += restored_step(tmp_path) == 1  # else it is 2, with the saved numbers
        file.write_bytes(content)
    assert found > 0


def test_nothing_readable_is_an_error_that_says_so(tmp_path):
    saved(tmp_path, 1, 2)
    cut(tmp_path / "1")
    cut(tmp_path / "2")
    with pytest.raises(UserError, match=r"no checkpoint there can be read \(tried 1, 2\)"):
        opened(tmp_path).restore(like())


@pytest.mark.parametrize("content", ["", '{"q/knn', "[1, 2]", '{"score": "high"}'])
def test_a_step_with_damaged_metrics_counts_as_unscored(content, tmp_path):
    def opened():
        return Checkpoints(tmp_path, keep_latest=3, keep_best=1, best_metric="score")

    with opened() as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": jnp.arange(3.0)}, {"score": step})
    (tmp_path / "2" / "metrics" / "metrics").write_text(content)
    with opened() as checkpoints:
        assert checkpoints.best_step() == 1
        like = {"x": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=jnp.zeros(1).sharding)}
        assert checkpoints.restore(like)["x"].tolist() == [0, 1, 2]
        checkpoints.save(3, {"x": jnp.arange(3.0)}, {"score": 0})
    with opened() as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
