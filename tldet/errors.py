"""Errors a user can mend.

The command line prints a :class:`TldetError` as one line and exits with code 2. Everything else is a programming
error and keeps its traceback. A message names the file, the annotation id or the config key, and says what to do.
"""


class TldetError(Exception):
    """What the user gave cannot be used as it is; the message says why and what to do."""


class ConfigError(TldetError):
    """A config file, key or value is wrong."""


class DataError(TldetError):
    """An annotation file, a picture or a results file is wrong."""


class OutputError(DataError):
    """A file or folder cannot be written."""


class CheckpointError(TldetError):
    """A checkpoint or weights file cannot be read, written or used here."""


class TrainingError(TldetError):
    """Training cannot start or go on (a non-finite loss, nothing to resume, ...)."""
