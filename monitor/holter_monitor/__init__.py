"""Holter's collector: stores every step of every rank, finds what is wrong, tells the person who can act."""

__version__ = "0.1.0"
