"""The one training loop, its state and checkpoints, and how steps are executed and measured."""
