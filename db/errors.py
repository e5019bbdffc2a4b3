"""Every error that kinshelf raises, in one tree.

KinshelfError                   (a server's refusals are in serve/base/errors.py)
├── InputError                  a source or a value in it is not usable
│   ├── SourceNotFound
│   ├── EmptySource
│   ├── UnreadableSource        encoding, delimiter, damaged or unknown format
│   ├── UnfinishedParts         an encoded folder that is not whole yet
│   ├── UnknownColumn
│   ├── UnknownCategory         no product has it yet: a typo, or a new one
│   ├── DuplicateId
│   └── InvalidEmbeddings       shape, dtype, NaN, zero norm, row count
├── ImageRejected               carries a short reason code
├── FilterError                 a --where expression or --sql query that is not allowed
├── EncoderError
│   ├── EncoderUnavailable      weights cannot be found or downloaded
│   └── EncoderMismatch         the shelf was built with another encoder
├── ShelfError
│   ├── ShelfNotFound
│   ├── ShelfExists
│   ├── ShelfLocked             another process writes
│   ├── ShelfPoisoned           an earlier write failed; reopen
│   ├── ShelfDamaged            a file with the shelf's data is damaged
│   ├── UnsupportedFormat
│   ├── EngineUnavailable       it cannot be reached, or did not answer in time
│   ├── EngineRefused           it refused the operation
│   ├── OnlyInDirectory         the operation needs a shelf in a directory
│   └── CopyMismatch            a copy differs from its source
├── ClusterError                Ray cannot be used, or could not finish
├── ProductNotFound
├── EmptyShelf
├── GenerationNotFound
└── ProbeError
    ├── ProbeNotFound
    ├── TooFewClasses
    └── InvalidSetting

A message names the wrong value and the remedy; the docstring of a class is its meaning.
"""

from __future__ import annotations


class KinshelfError(Exception):
    """Base class of all errors that a user can put right."""


class InputError(KinshelfError):
    """A source, or a value in it, cannot be used."""


class SourceNotFound(InputError):
    """The file or folder does not exist."""


class EmptySource(InputError):
    """The source holds no rows."""


class UnreadableSource(InputError):
    """The source's format, encoding or delimiter cannot be read."""


class UnfinishedParts(InputError):
    """A folder of encoded products whose encoding was not finished."""


class UnknownColumn(InputError):
    """A mapping or a required field names a column that the source lacks."""


class UnknownCategory(InputError):
    """No product has the category yet; `near` are those that look like it, the most alike first."""

    def __init__(self, message: str, near: list[str]) -> None:
        super().__init__(message)
        self.near = near


class DuplicateId(InputError):
    """An id is in the shelf already, and the caller chose to treat that as an error."""


class InvalidEmbeddings(InputError):
    """An embedding array has the wrong shape, dtype, count, or holds NaN or zero rows."""


class ImageRejected(KinshelfError):
    """An image cannot be used; `reason` is a short stable code such as `truncated`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FilterError(KinshelfError):
    """A filter expression or SQL query is not allowed or names an unknown column."""


class EncoderError(KinshelfError):
    """The encoder cannot be used."""


class EncoderUnavailable(EncoderError):
    """The encoder's files cannot be found or downloaded."""


class EncoderMismatch(EncoderError):
    """The shelf's embeddings come from another encoder."""


class ShelfError(KinshelfError):
    """The shelf cannot be used as requested."""


class ShelfNotFound(ShelfError):
    """There is no shelf at that path."""


class ShelfExists(ShelfError):
    """There is a shelf, or something else, at that path already."""


class ShelfLocked(ShelfError):
    """Another process is writing to the shelf."""


class ShelfPoisoned(ShelfError):
    """An earlier write through this handle failed; open the shelf again."""


class ShelfDamaged(ShelfError):
    """A file that holds the shelf's data is damaged."""


class UnsupportedFormat(ShelfError):
    """The shelf was written by a version whose format this one does not know."""


class ClusterError(KinshelfError):
    """Ray cannot be reached or used, or some parts could not be done there."""


class EngineUnavailable(ShelfError):
    """The engine cannot be reached, did not answer in time, or its client is not installed."""


class EngineRefused(ShelfError):
    """The engine refused the operation."""


class OnlyInDirectory(ShelfError):
    """The operation needs a shelf in a directory, and this one is on an engine."""


class CopyMismatch(ShelfError):
    """The final comparison found that a copy differs from its source."""


class ProductNotFound(KinshelfError):
    """The shelf has no product with that id."""


class EmptyShelf(KinshelfError):
    """The shelf holds no products, or none that the request can use."""


class GenerationNotFound(KinshelfError):
    """The shelf has no such generation, or no longer keeps it."""


class ProbeError(KinshelfError):
    """A probe cannot be trained or used as requested."""


class ProbeNotFound(ProbeError):
    """The shelf has no such probe."""


class TooFewClasses(ProbeError, ValueError):
    """Training needs products of at least two categories."""


class InvalidSetting(ProbeError):
    """A training setting is out of its range or unknown."""
