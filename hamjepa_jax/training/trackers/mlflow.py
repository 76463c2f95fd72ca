"""MLflow (extra mlflow). Its own settings count: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and the rest."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hamjepa_jax.training.trackers.contract import Results, Run

MOST_AT_ONCE = 100  # Parameters and metrics in one call; MLflow refuses more parameters.
LONGEST = 6000  # Characters of a parameter's value.
_ODD = re.compile(r"[^\w. /:-]")  # MLflow refuses these in names.
log = logging.getLogger("hamjepa_jax.train")


class MLflow:
    rewinds = False

    def __init__(self, run: Run):
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric, self._client, self._done = Metric, mlflow.MlflowClient(), run.finished
        self.id = run.id or self._new_run(run)
        if run.id is None:
            params = [Param(name, str(value)[:LONGEST]) for name, value in run.config.items()]
            for some in _groups(params):
                self._client.log_batch(self.id, params=some)
        else:
            self._client.update_run(self.id, status="RUNNING")
        log.info("mlflow: run %s at %s", self.id, mlflow.get_tracking_uri())

    def _new_run(self, run: Run) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "hamjepa")
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        return self._client.create_run(number, run_name=run.workdir.absolute().name).info.run_id

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        for some in _groups(
            [self._metric(_ODD.sub("_", name), value, now, step) for name, value in scalars.items()]
        ):
            self._client.log_batch(self.id, metrics=some)

    def add_results(self, results: Results) -> None:
        self.add(results.step, {f"final/{name}": value for name, value in results.metrics.items()})
        self._client.log_text(self.id, results.table, "table.txt")
        for file in results.figures.values():
            self._client.log_artifact(self.id, str(file), "plots")
        self._done = True

    def flush(self) -> None:
        """Every call is answered once it is stored."""

    def close(self) -> None:
        self._client.set_terminated(self.id, status="FINISHED" if self._done else "KILLED")


def _groups(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[i : i + MOST_AT_ONCE] for i in range(0, len(values), MOST_AT_ONCE)]
