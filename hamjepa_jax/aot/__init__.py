"""The training step compiled ahead of time for slices of TPU chips: memory, FLOPs, collectives, predicted time."""
