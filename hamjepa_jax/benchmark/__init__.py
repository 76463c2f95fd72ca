"""Speed on the machine at hand: the training step, checkpoints, the input pipeline, evaluation."""
