"""TensorBoard's event file, written at once: tensorboardX's own writer has a thread that a full disk hangs."""

import json
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import text as text_summary

from hamjepa_jax.files import room_for_folder
from hamjepa_jax.training.trackers.contract import Results, Run


class TensorBoard:
    """From here on TensorBoard hides the points after the first step in the folder's other files."""

    rewinds = True

    def __init__(self, run: Run):
        self.id = "tensorboard"
        self._events = EventsWriter(str(room_for_folder(run.workdir / self.id) / "events"))
        self._write(run.first_step + 1, file_version="brain.Event:2")
        self._write(run.first_step + 1, session_log=SessionLog(status=SessionLog.START))
        if run.id is None and run.config:
            self._write(0, summary=text_summary("config", _preformatted(json.dumps(dict(run.config), indent=1))))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def add_results(self, results: Results) -> None:
        self.add(results.step, {f"final/{name}": value for name, value in results.metrics.items()})
        self._write(results.step, summary=text_summary("results", _preformatted(results.table)))
        for name, file in results.figures.items():
            image = Summary.Image(colorspace=4, encoded_image_string=file.read_bytes())
            self._write(results.step, summary=Summary(value=[Summary.Value(tag=f"plots/{name}", image=image)]))

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _write(self, step: int, **content) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def _preformatted(text: str) -> str:
    """Text as TensorBoard's Markdown shows it unchanged."""
    return "".join(f"    {line}\n" for line in text.splitlines())
