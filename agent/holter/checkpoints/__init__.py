"""What the node agent knows of checkpoints: where they lie (`shelf`), whether they are whole (`whole`), whether a copy is the same (`compare`)."""
