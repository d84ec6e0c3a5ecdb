"""The verbs that the SDK brings to `holter`, one a file."""
