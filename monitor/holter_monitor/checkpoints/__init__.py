"""Saved checkpoints as arrays, without running anything that is stored in them and without torch."""
