"""The trainer around Keras `fit`: budgets, optimizers, checkpoints, resume."""
