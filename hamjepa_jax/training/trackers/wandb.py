"""Weights & Biases (extra wandb). Its own settings count: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the rest."""

import html
import logging
import os
import secrets
from collections.abc import Mapping

from hamjepa_jax.training.trackers.contract import Results, Run

log = logging.getLogger("hamjepa_jax.train")


class WandB:
    rewinds = False

    def __init__(self, run: Run):
        import wandb

        self._wandb = wandb
        self.id = run.id or secrets.token_hex(4)
        self._run = wandb.init(
            id=self.id,
            resume="allow",
            reinit="create_new",  # Several seeds at once are several runs.
            project=os.environ.get("WANDB_PROJECT", "hamjepa"),
            name=os.environ.get("WANDB_NAME", run.workdir.absolute().name),
            dir=str(run.workdir),
            config=dict(run.config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")
        log.info("wandb: %s", self._run.dir if self._run.offline else self._run.url)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({"step": step, **scalars})

    def add_results(self, results: Results) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in results.metrics.items()})
        rows = [[name, value] for name, value in results.metrics.items()]
        figures = {f"plots/{name}": self._wandb.Image(str(file)) for name, file in results.figures.items()}
        table = self._wandb.Table(columns=["metric", "value"], data=rows)
        text = self._wandb.Html(f"<pre>{html.escape(results.table)}</pre>")
        self._run.log({"step": results.step, "results": text, "metrics": table, **figures})

    def flush(self) -> None:
        """A process of its own writes at once."""

    def close(self) -> None:
        self._run.finish()
