"""The one error of the bench: a scenario that cannot run here. It says why, and what to do about it."""


class ScenarioError(Exception):
    """Ends one scenario; the others go on."""
