"""Durations in words as numbers of optimiser steps."""

import math

import ml_collections

from hamjepa_jax.errors import UserError


def duration_steps(field: str, text: str, *, steps_per_epoch: int, total_steps: int) -> int:
    """ "10 epochs", "500 steps" or "5%" (of the total) as a number of optimiser steps.

    Raises:
      UserError: naming the field, if the text is none of these.
    """
    number, unit = (text[:-1], "%") if text.endswith("%") else text.partition(" ")[::2]
    sizes = {"%": total_steps / 100, "epoch": steps_per_epoch, "epochs": steps_per_epoch, "step": 1, "steps": 1}
    try:
        value = float(number) * sizes[unit]
    except (ValueError, KeyError):
        raise UserError(
            f'{field} {text!r}: write a duration as "10 epochs", "500 steps" or "5%" of the training steps.'
        ) from None
    if not 0 <= value < math.inf:
        raise UserError(f"{field} {text!r}: a duration is finite and not negative.")
    return round(value)


def total_steps(config: ml_collections.ConfigDict, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run."""
    return config.train.steps if config.train.steps is not None else config.train.epochs * steps_per_epoch


def epoch_at(step: int, steps_per_epoch: int) -> int:
    """The epoch, counted from 1, that `step` steps of training end in."""
    return max(step - 1, 0) // steps_per_epoch + 1
