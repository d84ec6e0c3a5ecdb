"""What must be well before a launch, a subject a file. Every check changes nothing that it does not clean up, and says what it measured."""
