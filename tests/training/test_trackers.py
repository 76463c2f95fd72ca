"""Trackers: each point once, whatever happens to the run; wandb and mlflow for real, without a network."""

import json
import struct

import pytest
import tiny

from hamjepa_jax.errors import UserError
from hamjepa_jax.training import trackers
from hamjepa_jax.training.trackers import kept
from hamjepa_jax.training.trackers.contract import Results
from hamjepa_jax.training.writer import MetricsWriter


class Recorder:
    """A tracker in memory; its record outlives it, as one on a server does."""

    rewinds = False

    def __init__(self, points, run):
        self.points, self.id, self.failing = points, run.id or "abc", False
        self.opened_as = run.id

    def add(self, step, scalars):
        if self.failing:
            raise ConnectionError("the server is gone")
        self.points.extend((step, name) for name in scalars)

    def add_results(self, results):
        self.points.append((results.step, "results"))

    def flush(self):
        pass

    def close(self):
        pass


@pytest.fixture
def record(monkeypatch):
    """(points that were recorded, recorders in the order that they were opened) of trackers "wandb"."""
    points, opened = [], []

    def open_one(name, run):
        opened.append(Recorder(points, run))
        return opened[-1]

    monkeypatch.setattr(kept, "_opened", open_one)
    return points, opened


def session(workdir, first_step, last_step, names=("wandb",)):
    """Logs a step at a time, with an evaluation at even steps, and is killed."""
    writer = MetricsWriter(workdir, first_step=first_step, trackers=names)
    for step in range(first_step + 1, last_step + 1):
        writer.write_scalars(step, {"total": 1.0})
        if step % 2 == 0:
            writer.write_scalars(step, {"knn": 0.5})
    return writer


def wanted(last_step):
    return sorted(
        [(s, "total") for s in range(1, last_step + 1)] + [(s, "knn") for s in range(2, last_step + 1, 2)]
    )


def test_a_run_that_is_killed_and_goes_on_doubles_no_point_and_keeps_its_record(tmp_path, record):
    points, opened = record
    session(tmp_path, 0, 8)
    session(tmp_path, 3, 5)  # from an earlier checkpoint, and killed before it was where it had been
    session(tmp_path, 4, 10)
    assert sorted(points) == wanted(10)
    assert [r.opened_as for r in opened] == [None, "abc", "abc"]


def test_a_kill_between_two_records_of_a_step_loses_none(tmp_path, record):
    points, _ = record
    writer = session(tmp_path, 0, 3)
    writer.write_scalars(4, {"total": 1.0})  # The evaluation of step 4 does not come.
    session(tmp_path, 2, 4)
    assert sorted(points) == wanted(4)


def test_a_tracker_gets_what_it_missed(tmp_path, record):
    points, opened = record
    session(tmp_path, 0, 4, names=())
    session(tmp_path, 4, 6)
    assert sorted(points) == wanted(6)
    session(tmp_path, 6, 8, names=())  # turned off for a while
    opened.clear()
    writer = session(tmp_path, 8, 8)
    assert sorted(points) == wanted(8)
    opened[0].failing = True
    writer.write_scalars(9, {"total": 1.0})
    writer.write_scalars(10, {"total": 1.0})
    writer.write_scalars(10, {"knn": 0.5})
    session(tmp_path, 10, 12)
    assert sorted(points) == wanted(12)


def test_a_tracker_that_fails_stops_no_run(tmp_path, record, caplog):
    _, opened = record
    writer = session(tmp_path, 0, 1)
    opened[0].failing = True
    writer.write_scalars(2, {"total": 1.0})
    writer.write_scalars(3, {"total": 1.0})
    assert [r.getMessage() for r in caplog.records] == [
        "log.trackers 'wandb': it failed, and gets nothing more from this session (the server is gone)"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_results_are_recorded_once(tmp_path, record):
    points, _ = record
    for _ in range(2):
        writer = MetricsWriter(tmp_path, first_step=4, trackers=("wandb",))
        writer.write_results(Results(4, {"knn": 0.5}, "a table", {}))
    assert points == [(4, "results")]


def test_a_damaged_list_of_trackers_is_put_aside(tmp_path, record):
    (tmp_path / "trackers.json").write_text('{"wandb": {"id"')
    session(tmp_path, 0, 1)
    assert (tmp_path / "trackers.json.damaged1").exists()


def test_a_tracker_whose_package_is_missing_is_refused_before_training(tmp_path, monkeypatch):
    from hamjepa_jax.train import train

    config = tiny.quick()
    config.log.trackers = ("tensorboard", "wandb")
    monkeypatch.setattr(kept.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"log\.trackers 'wandb': .* pip install 'hamjepa-jax\[wandb\]'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_tensorboard_gets_config_results_and_figures(tmp_path):
    (tmp_path / "figure.png").write_bytes(b"\x89PNG the picture")
    writer = MetricsWriter(tmp_path, first_step=0, trackers=("tensorboard",), config={"train.epochs": 7})
    writer.write_results(Results(4, {"knn": 0.5}, "a table", {"figure": tmp_path / "figure.png"}))
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    for text in (b"train.epochs", b"a table", b"final/knn", b"plots/figure", b"PNG the picture"):
        assert text in events.read_bytes()


class Killed(Exception):
    pass


def killed_and_gone_on(workdir, name):
    """A run that ends after step 5 of 12 without a word, two steps after its checkpoint, and goes on to its end."""
    from hamjepa_jax.train import train

    config = tiny.quick()
    config.log.trackers = (name,)

    def kill(step, state, metrics):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(config, workdir, callbacks=[kill])
    train(config, workdir)
    train(config, workdir)  # done already
    return json.loads((workdir / "trackers.json").read_text())[name]["id"]


def test_mlflow_has_one_run_with_each_point_once(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    number, client = killed_and_gone_on(tmp_path / "run", "mlflow"), MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "hamjepa"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (number, "FINISHED")
    assert run.data.params["train.epochs"] == "2"
    assert [m.step for m in client.get_metric_history(number, "train/total")] == list(range(1, 13))
    assert len(client.get_metric_history(number, "final/q/knn_top1_k5_cosine_majority")) == 1
    assert {f.path for f in client.list_artifacts(number)} == {"table.txt", "plots"}
    assert {f.path for f in client.list_artifacts(number, "plots")} >= {"plots/readouts.png"}


def test_wandb_has_one_run_with_each_point_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    number = killed_and_gone_on(tmp_path / "run", "wandb")
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{number}.wandb"))
    assert len(files) == 3  # One for each session, all of one run.
    records = [record for file in files for record in wandb_records(file)]
    steps = [h["step"] for h in records if "train/total" in h]
    assert steps == list(range(1, 13))
    assert sum("plots/readouts/_type" in h and "results/_type" in h for h in records) == 1


def wandb_records(file):
    """The history of one session, as dictionaries; the file is a log of LevelDB's form after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # No header fits into the rest of a block.
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, whole = wandb_internal_pb2.Record.FromString(whole), b""
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                records.append({name: json.loads(value) for name, value in items.items()})
    return records


def test_the_names_of_trackers_are_those_of_the_config():
    from hamjepa_jax.config import fields

    assert fields.LOG["trackers"].choices == trackers.NAMES
