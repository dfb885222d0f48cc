"""Training: flow matching, losses, optimiser, sharding, checkpoints, and the loop."""
