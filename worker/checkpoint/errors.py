"""Why a checkpoint does not load. Each says what was found, what was looked for, and the way out.

::

    CheckpointError
    ├── PathError           no such folder, and not a repository that can be reached
    ├── FormatError         a folder, but no checkpoint of a kind that we know
    │   └── ArchitectureError   a config whose architecture nobody implements here
    ├── IncompleteError     weight files are missing, cut short, or lack tensors
    ├── UnsafeFileError     a file that could run code, or points out of its folder
    ├── BaseModelError      the base is missing, or has another shape
    ├── TowerError          the vision tower was not found, or does not fit
    ├── TokenizerError      no tokenizer, or one of another size
    ├── AdapterError        the adapter does not fit its base
    ├── TemplateError       no such chat template, or none that makes a prompt
    ├── QuantisationError   the device or the package does not serve it
    ├── MemoryShortageError it will not fit: needed and free
    └── OutputError         what a tool is to write is in the way of something, or has no room
"""

from __future__ import annotations


class CheckpointError(Exception):
    """A checkpoint cannot be loaded; the message is meant for the operator."""


class PathError(CheckpointError):
    """The path is not a folder, and no repository of that name can be reached."""


class FormatError(CheckpointError):
    """The folder holds no checkpoint of a kind that we know."""


class ArchitectureError(FormatError):
    """The config names an architecture that is not implemented here."""


class IncompleteError(CheckpointError):
    """Weight files or tensors are missing, or a file is cut short."""


class UnsafeFileError(CheckpointError):
    """A file would run code when read, or an index points out of its folder."""


class BaseModelError(CheckpointError):
    """The base model is missing, or is not the one that the checkpoint was made from."""


class TowerError(CheckpointError):
    """The vision tower was not found, or does not fit the checkpoint."""


class TokenizerError(CheckpointError):
    """There is no tokenizer, or it has more tokens than the model."""


class AdapterError(CheckpointError):
    """The adapter does not fit the base."""


class TemplateError(CheckpointError):
    """There is no such chat template, it does not parse, or it makes no prompt."""


class QuantisationError(CheckpointError):
    """The device, or the machine's packages, cannot hold weights that way."""


class MemoryShortageError(CheckpointError):
    """The device has too little memory for the checkpoint."""


class OutputError(CheckpointError):
    """A tool's output cannot be written where it was asked for."""
