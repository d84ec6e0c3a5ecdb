"""Steps of all ranks, aligned, and what is measured on them: what the detectors are built of."""
