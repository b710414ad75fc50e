"""The model in torch: modules named as in the checkpoints, their operators, and `generate`."""
