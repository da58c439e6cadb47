"""HTTP download: resumable, verified, moved into place when complete."""

from __future__ import annotations

import base64
import errno
import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, require_space, sha256_of
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.zoo.store import base_name

ATTEMPTS = 4
PAUSE = 0.5  # seconds before the second attempt, doubled each time
TIMEOUT = 30.0  # seconds without data
MAX_BYTES = 4 << 30
_BLOCK = 1 << 18
_LARGE = 500_000_000  # bytes, from which on what is free is told before


class Unavailable(RkzooError):
    """This address does not deliver the file; another one may."""


@dataclass(frozen=True)
class DownloadRequest:
    """A file to download, with its hash and size where known."""

    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        """File name from the URL."""
        return base_name(urlsplit(self.url).path)

    @property
    def shown(self) -> str:
        """The URL without a password, for messages."""
        return without_login(self.url)


def without_login(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def download(request: DownloadRequest, part: Path, report: ProgressReporter = SILENT) -> str:
    """Download a file, resuming a partial one.

    Args:
        request: The file.
        part: Where to write. It is kept when the connection breaks, so that the next call resumes;
            it is removed when its content is wrong or the disk is full.
        report: Receives progress.

    Returns:
        Hex sha256 of the file.

    Raises:
        Unavailable: This address does not deliver the file.
        RkzooError: The disk is full.
    """
    with os_errors_explained(f"{request.name} cannot be stored."):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            if request.sha256 is None:
                # Without a hash, mismatching halves would go unnoticed.
                part.unlink(missing_ok=True)
            resumed = part.exists() and part.stat().st_size > 0
            _fill(request, part, report)
            download = sha256_of(part)
            if resumed and request.sha256 not in (None, download):
                # The earlier part may be of an older file: start again.
                part.unlink()
                _fill(request, part, report)
                download = sha256_of(part)
            _check(request, part, download)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                part.unlink(missing_ok=True)
            raise
        except _Wrong as wrong:
            part.unlink(missing_ok=True)
            raise wrong.error from None
    return download


class _Wrong(Exception):
    """The content is wrong; the partial file must be removed."""

    def __init__(self, error: RkzooError) -> None:
        self.error = error


class _Broken(Exception):
    """The connection failed in a way that a retry may fix."""


def _check(request: DownloadRequest, part: Path, text: str) -> None:
    if request.sha256 not in (None, text):
        raise _Wrong(
            Unavailable(
                f"{request.name} from {request.shown} is not the expected file.",
                f"Its sha256 is {text}, expected was {request.sha256}; it has been removed.",
                "Try again; if it persists, the file was changed at its source: report it.",
            )
        )
    size = part.stat().st_size
    if request.size not in (None, size):
        raise _Wrong(_wrong_size(request, size))


def _wrong_size(request: DownloadRequest, size: int) -> Unavailable:
    return Unavailable(
        f"{request.name} from {request.shown} is not the expected file.",
        f"It has {size} bytes, expected were {request.size}; it has been removed.",
        "Try again; a login page of the network or a changed file may be the cause.",
    )


def _fill(request: DownloadRequest, part: Path, report: ProgressReporter) -> None:
    """Download until `part` is complete, resuming after broken connections."""
    failures = 0
    if request.size is not None:
        done = part.stat().st_size if part.exists() else 0
        said = require_space(part.parent, request.size - done, request.name)
        if request.size >= _LARGE:
            report.note(said)
    with report.task(f"download {request.name}", request.size, bytes=True) as task:
        while True:
            before = part.stat().st_size if part.exists() else 0
            if request.size is not None and before == request.size:
                task.update(before, request.size)
                return
            try:
                _attempt(request, part, before, task.update)
                return
            except _Broken as broken:
                after = part.stat().st_size if part.exists() else 0
                failures = 1 if after > before else failures + 1
                if failures >= ATTEMPTS:
                    raise Unavailable(
                        f"{request.name} could not be downloaded from {request.shown}.",
                        f"{broken}",
                        "Try again; the download resumes where it stopped.",
                    ) from broken
                time.sleep(PAUSE * 2 ** (failures - 1))


def _attempt(
    request: DownloadRequest, part: Path, have: int, progress: Callable[[float, float | None], None]
) -> None:
    if request.size is not None and have > request.size:
        part.unlink()
        have = 0
    with _opened(request, {"Range": f"bytes={have}-"} if have else {}) as answer:
        if answer.status == 416:
            # No bytes after ours: complete, or longer than the file.
            part.unlink()
            raise _Broken("The server cannot resume the download.")
        start = have if answer.status == 206 else 0
        if start and _range_start(answer) != start:
            part.unlink()
            raise _Broken("The server sent another part of the file than requested.")
        total = _total(answer, start)
        if request.size is not None and total not in (None, request.size):
            raise _Wrong(_wrong_size(request, total or 0))
        require_space(part.parent, (total or request.size or 0) - start, request.name)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            completed = _copy(answer, file, start, request, lambda n: progress(n, total))
    if total is not None and completed < total:
        raise _Broken(f"The connection ended after {completed} of {total} bytes.")


def _range_start(answer: Any) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _total(answer: Any, start: int) -> int | None:
    length: str | None = answer.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _copy(
    answer: Any,
    file: IO[bytes],
    completed: int,
    request: DownloadRequest,
    progress: Callable[[int], None],
) -> int:
    limit = request.size if request.size is not None else MAX_BYTES
    while True:
        try:
            block = answer.read(_BLOCK)
        except http.client.IncompleteRead as error:
            block = error.partial
            file.write(block)
            raise _Broken("The connection ended early.") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_network_reason(error, request)) from error
        if not block:
            return completed
        completed += len(block)
        if completed > limit:
            raise _Wrong(_wrong_size(request, completed))
        file.write(block)
        progress(completed)


def read_page(url: str, accept: str, limit: int = 64 << 20) -> tuple[bytes, str, str]:
    """Fetch a small document.

    Args:
        url: Its URL.
        accept: The Accept header.
        limit: Largest size in bytes.

    Returns:
        Its bytes, content type, and final URL.

    Raises:
        Unavailable: It cannot be read, or is too long.
    """
    request = DownloadRequest(url)
    for attempt in range(ATTEMPTS):
        try:
            with _opened(request, {"Accept": accept}) as answer:
                body = answer.read(limit + 1)
                kind = answer.headers.get_content_type()
                break
        except (_Broken, OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1:
                reason = (
                    str(error) if isinstance(error, _Broken) else _network_reason(error, request)
                )
                raise Unavailable(
                    f"{request.shown} cannot be read.", reason, "Try again later."
                ) from error
            time.sleep(PAUSE * 2**attempt)
    if len(body) > limit:
        raise Unavailable(
            f"{request.shown} is longer than any package index.",
            f"It has more than {limit >> 20} MiB.",
            "Check RKZOO_PYPI.",
        )
    return body, kind, answer.url


def _opened(requested: DownloadRequest, headers: dict[str, str]) -> Any:
    parts = urlsplit(requested.url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise Unavailable(
            f"{requested.shown} is not a URL that rkzoo downloads from.",
            "Only https and, for a package index of your own, http are supported.",
            "Correct the address.",
        )
    request = urllib.request.Request(
        without_login(requested.url), headers={"User-Agent": "rkzoo", **headers}
    )
    login = parts.netloc.rpartition("@")[0]
    if login:
        token = base64.b64encode(unquote(login).encode()).decode()
        # Unredirected: the password must not be sent to another host.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        return _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        return _http_error(error, requested)
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, Unavailable):
            raise reason from error
        raise _connection(reason if isinstance(reason, Exception) else error, requested) from error
    except (OSError, http.client.HTTPException) as error:
        raise _connection(error, requested) from error


def _http_error(error: urllib.error.HTTPError, request: DownloadRequest) -> Any:
    if error.code == 416:
        return error
    with error:
        if error.code in (408, 425, 429, 500, 502, 503, 504):
            raise _Broken(f"The server answers {error.code} {error.reason}.") from error
        fix = {
            302: "Report it; until then fetch the file by hand.",
            401: "Put the name and password into the address of the index.",
            403: "Check whether the network blocks it, or give a mirror in RKZOO_PYPI.",
            404: "The file was moved or removed at its source: look for a newer rkzoo.",
            407: "The proxy requires a login: put it into HTTPS_PROXY.",
        }.get(error.code, "Try again later.")
        raise Unavailable(
            f"{request.name} is not available from {request.shown}.",
            f"The server answers {error.code} {error.reason}.",
            fix,
        ) from error


def _connection(error: Exception, request: DownloadRequest) -> Exception:
    """The exception to raise: permanent failures as Unavailable, temporary ones as _Broken."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unavailable(
            f"The certificate of {urlsplit(request.url).hostname} is not trusted.",
            f"{error.verify_message.rstrip('.')}.",
            "If a proxy of your network signs for it, name its certificate in SSL_CERT_FILE.",
        )
    if isinstance(error, socket.gaierror | ConnectionRefusedError):
        return Unavailable(
            f"{request.name} cannot be downloaded: there is no network, or no route to the server.",
            _network_reason(error, request),
            "Check the network; set HTTPS_PROXY behind a proxy, RKZOO_PYPI for a mirror of PyPI.",
        )
    return _Broken(_network_reason(error, request))


def _network_reason(error: Exception, request: DownloadRequest) -> str:
    host = urlsplit(request.url).hostname
    if isinstance(error, socket.gaierror):
        return f"The name {host} is not known (DNS)."
    if isinstance(error, TimeoutError):
        return f"{host} sent nothing for {TIMEOUT:g} s."
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"The connection to {host} failed: {str(text).rstrip('.')}."


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything weaker."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urlsplit(urljoin(req.full_url, newurl)).scheme
        if target != "https" and not (target == "http" and req.type == "http"):
            raise urllib.error.URLError(
                Unavailable(
                    f"{without_login(req.full_url)} redirects to an insecure address.",
                    f"The new address is {without_login(newurl)[:200]}.",
                    "Report it; until then fetch the file by hand.",
                )
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    named = next(
        (
            os.environ[name]
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
            if os.environ.get(name)
        ),
        "",
    )
    return urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=_tls(named)))


@cache
def _tls(bundle: str) -> ssl.SSLContext:
    """A TLS context with the given bundle, else with the system's certificates."""
    if bundle:
        folder = os.path.isdir(bundle)
        try:
            return ssl.create_default_context(
                cafile=None if folder else bundle, capath=bundle if folder else None
            )
        except (OSError, ssl.SSLError) as error:
            raise RkzooError(
                f"The certificates in {bundle} cannot be read.",
                f"{error}.",
                "Correct SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT.",
            ) from error
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not ssl.get_default_verify_paths().capath:
        # A Python without the system's certificates (python.org on macOS).
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context
