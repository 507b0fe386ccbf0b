"""The one training loop, its state and checkpoints, and how its steps are run and measured."""
