"""Every error that kinshelf raises, in one tree.

KinshelfError                   (a server's refusals are in serve/base/errors.py)
├── InputError                  a source or a value in it is not usable
│   ├── SourceNotFound
│   ├── EmptySource
│   ├── UnreadableSource        encoding, delimiter, damaged or unknown format
│   ├── UnfinishedParts         an encoded folder that is not whole yet
│   ├── UnknownColumn
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
│   ├── ShelfPoisoned           a write failed half-way; reopen
│   ├── ShelfDamaged            the truth itself is damaged
│   ├── UnsupportedFormat
│   ├── EngineUnavailable       it cannot be reached, or did not answer in time
│   ├── EngineRefused           it answered that it will not do that
│   ├── OnlyInDirectory         asked of an engine what only a directory can do
│   └── CopyMismatch            a copy is not what was copied
├── ClusterError                Ray cannot be used, or could not finish
├── ProductNotFound
├── EmptyShelf
├── GenerationNotFound
└── ProbeError
    ├── ProbeNotFound
    ├── TooFewClasses
    └── InvalidSetting

A message carries the value that is wrong and the remedy; the docstring of a class is its meaning.
"""

from __future__ import annotations


class KinshelfError(Exception):
    """Base class: something that the user can mend."""


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


class DuplicateId(InputError):
    """An id is in the shelf already and the caller asked for that to be an error."""


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
    """The shelf's directory cannot be used as asked."""


class ShelfNotFound(ShelfError):
    """There is no shelf at that path."""


class ShelfExists(ShelfError):
    """There is a shelf, or something else, at that path already."""


class ShelfLocked(ShelfError):
    """Another process is writing to the shelf."""


class ShelfPoisoned(ShelfError):
    """A write failed half-way through this handle; open the shelf again."""


class ShelfDamaged(ShelfError):
    """A file that holds the truth is damaged."""


class UnsupportedFormat(ShelfError):
    """The shelf was written by a version whose format this one does not know."""


class ClusterError(KinshelfError):
    """Ray cannot be reached or used, or some parts could not be done there."""


class EngineUnavailable(ShelfError):
    """The engine cannot be reached, did not answer in time, or its client is not installed."""


class EngineRefused(ShelfError):
    """The engine answered that it will not do what was asked."""


class OnlyInDirectory(ShelfError):
    """Asked of a shelf on an engine what only a shelf in a directory can do."""


class CopyMismatch(ShelfError):
    """A copy, when it was compared at the end, is not what was copied."""


class ProductNotFound(KinshelfError):
    """No product of that id is in the shelf."""


class EmptyShelf(KinshelfError):
    """The shelf holds no products, or none that the request can use."""


class GenerationNotFound(KinshelfError):
    """The shelf has no such generation, or no longer keeps it."""


class ProbeError(KinshelfError):
    """A probe cannot be trained or used as asked."""


class ProbeNotFound(ProbeError):
    """The shelf has no such probe."""


class TooFewClasses(ProbeError, ValueError):
    """Training needs products of at least two categories."""


class InvalidSetting(ProbeError):
    """A training setting is out of its range or unknown."""
