"""What can go wrong in the SDK, as a tree.

    HolterError
    ├── FrameError       a frame's bytes do not say what they must
    ├── SettingsError    a setting cannot be used
    └── ShelfError       a place of checkpoints cannot be looked at

None of these ever reaches a training loop: `holter.init` and the run's methods catch, count and go on.
"""


class HolterError(Exception):
    """The root of all errors that this package raises."""


class FrameError(HolterError):
    """A frame's bytes do not say what they must: `field` names the place, `problem` what is wrong, `remedy` what to send instead."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field, self.problem, self.remedy = field, problem, remedy


class SettingsError(HolterError):
    """A setting cannot be used; the sentence names the setting, its value and what it may be."""


class ShelfError(HolterError):
    """A place where checkpoints lie cannot be looked at: no such file system, no rights, no answer."""
