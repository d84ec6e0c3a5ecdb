"""The control store's schema, version by version (Alembic). `holter serve` runs what is missing at its start."""
