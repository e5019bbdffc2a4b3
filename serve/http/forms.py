"""Forms as programs and browsers send them: texts in bounded memory, and one picture."""

from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from kinshelf.serve.base.errors import Unusable

if TYPE_CHECKING:
    from fastapi import Request

_FIELDS = 32
_PICTURE = "image"
"""The only field that may hold a file."""


class _Parts(MultiPartParser):
    """Starlette's, for parts whose `filename` is spelled otherwise, and for texts of bounded size
    all together."""

    _texts = 0

    def on_headers_finished(self) -> None:
        """Decide whether the part is a file."""
        part = self._current_part
        kind = dict(part.item_headers).get(b"content-type", b"")
        part.content_disposition = _as_file(part.content_disposition or b"", kind.lower())
        super().on_headers_finished()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a part."""
        if self._current_part.file is None:
            self._texts += end - start
            if self._texts > self.max_part_size:
                raise MultiPartException(f"its texts have more than {self.max_part_size:,} bytes")
        super().on_part_data(data, start, end)


def _as_file(disposition: bytes, kind: bytes) -> bytes:
    """A Content-Disposition that has a `filename` where the part is a file, or may be one.

    It is where it has one, or `filename*` (RFC 5987), or the media type of a picture. That of
    `image` without any is empty: what it holds decides.
    """
    read = Message()
    read["content-disposition"] = disposition.decode("latin-1")
    try:
        is_file = bool(read.get_filename()) or kind.startswith(b"image/")
        named = read.get_param("name", header="content-disposition") == _PICTURE
    except (ValueError, TypeError, LookupError):  # the library's, for odd pieces and sets
        raise MultiPartException("a Content-Disposition cannot be read") from None
    if is_file:
        return disposition + b'; filename="file"'
    return disposition + b'; filename=""' if named else disposition


async def read_form(request: Request, kind: str, most: int) -> tuple[dict[str, str], bytes | None]:
    """Read the texts that are not blank, and the picture. `most`: bytes of all texts.

    `kind` is the media type, urlencoded if it is not multipart. Raises Unusable.
    """
    body = request.stream()
    parser: FormParser | MultiPartParser = FormParser(
        request.headers, body, max_fields=_FIELDS, max_part_size=most
    )
    if kind == "multipart/form-data":
        parser = _Parts(request.headers, body, max_files=1, max_fields=_FIELDS, max_part_size=most)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Unusable(f"the form cannot be read: {error.message}") from None
    try:
        texts = [(k, v) for k, v in form.multi_items() if isinstance(v, str) and v != ""]
        fields = dict(texts)
        for name in fields:
            if sum(name == each for each, _ in texts) > 1:
                raise Unusable(f"{name[:60]!r} is given more than once: send JSON for a list")
        files = {k: v for k, v in form.multi_items() if isinstance(v, UploadFile)}
        if others := [name for name in files if name != _PICTURE]:
            raise Unusable(f"{others[0][:60]!r} holds a file: only {_PICTURE!r} may")
        data = await files[_PICTURE].read() if files else None
        return (fields, data) if not files or files[_PICTURE].filename else _told(fields, data)
    finally:
        await form.close()


def _told(fields: dict[str, str], data: bytes | None) -> tuple[dict[str, str], bytes | None]:
    """A part `image` without a file's name: text is an address, other bytes are the picture."""
    try:
        address = (data or b"").decode()
    except UnicodeDecodeError:
        return fields, data
    return fields | ({_PICTURE: address} if address else {}), None
