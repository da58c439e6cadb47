"""Forms (multipart/form-data) that clients send."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from rkzoo.serving.app import admitted_body
from rkzoo.serving.errors import ServingError

# It logs each form that it cannot read.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_MOST_FIELDS = 32
_MOST_FIELD = 1 << 20  # bytes


@dataclass(frozen=True)
class Form:
    """A form: its fields in order, and the bytes and the name of its only file, `file`."""

    fields: tuple[tuple[str, str], ...]
    data: bytes
    filename: str


def content_type(request: Request) -> str:
    """What a request says that its body is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(engine: Any, request: Request) -> Form:
    """The form of a request. Raises ServingError: it is none, has no file, or is too large."""
    if content_type(request) != "multipart/form-data":
        raise ServingError(400, "The body is no form (multipart/form-data) with a file in it.")
    # The body comes by way of its bounds: the parser would write a file of any size to the disk.
    body = await admitted_body(engine, request)
    parser = MultiPartParser(
        request.headers,
        _at_once(body),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_MOST_FIELD,
    )
    parser.spool_max_size = len(body) + 1  # in memory, where it is bounded already
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        raise ServingError(400, f"The form cannot be read: {error.message}") from error
    try:
        file = parsed.get("file")
        if not isinstance(file, UploadFile):
            raise ServingError(400, "The form has no file `file`.")
        fields = tuple((k, v) for k, v in parsed.multi_items() if isinstance(v, str))
        return Form(fields, await file.read(), (file.filename or "")[:200])
    finally:
        await parsed.close()


async def _at_once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
