"""On a terminal, one line that renews itself; elsewhere nothing, since the log has its lines."""

import contextlib
import logging
from collections.abc import Iterator

import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hamjepa_jax.training.processes import is_first


class Progress:
    """Steps taken, epoch, images/s, time left and loss."""

    def __init__(self, bar: tqdm.tqdm):
        self._bar = bar
        self.on_terminal: bool = not bar.disable

    def advance(self, steps: int) -> None:
        self._bar.update(steps)

    def show(self, epoch: float, images_per_s: float, loss: float) -> None:
        """Puts these numbers at the end of the line from here on."""
        self._bar.set_postfix_str(
            f"epoch {epoch:.2f} · {images_per_s:,.0f} images/s · loss {loss:.3g}", refresh=False
        )


@contextlib.contextmanager
def progress(first_step: int, total: int) -> Iterator[Progress]:
    """The line of a run's training, above which the package's messages scroll while it is there."""
    bar = tqdm.tqdm(
        initial=first_step, total=total, unit="step", dynamic_ncols=True, leave=False,
        disable=None if is_first() else True,  # None: where standard error is no terminal.
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        if not bar.disable:
            stack.enter_context(logging_redirect_tqdm([logging.getLogger("hamjepa_jax")]))
        yield Progress(bar)
