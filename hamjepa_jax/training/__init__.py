"""The training step and what surrounds it: state, optimiser, mesh, checkpoints, logs."""
