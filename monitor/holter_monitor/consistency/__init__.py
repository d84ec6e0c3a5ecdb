"""Ranks compared through their fingerprints: equal where tensors are replicated, unlike where they are sharded. Vectorised over ranks."""
