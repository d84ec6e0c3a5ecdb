"""A scan's result for people and for programs: terminal, JSON, one HTML page."""
