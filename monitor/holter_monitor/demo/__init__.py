"""`holter demo`: a real training run on this machine, really poisoned once, watched from the first step to the message."""
