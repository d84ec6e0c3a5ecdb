"""What goes wrong with a checkpoint."""


class CheckpointError(Exception):
    """The checkpoint cannot be read; the sentence says which file, and what was expected."""
