"""Meaning of what a store says when it fails: kind of error, reason in one line, cure. Pure.

The texts are those of obstore and delta-rs, which quote the answers of S3, Azure and GCS as XML,
or describe why there was no answer.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from datazone_dagster.errors import (
    StorageError,
    StoreAccessError,
    StoreCredentialsError,
    StoreError,
    StoreLocationError,
    StoreUnavailableError,
)
from datazone_dagster.text import shown, without_secrets

_NO_CREDENTIALS = (
    "No credentials for the store were found, and this machine has no role that provides "
    "them. Set them in the environment of the Dagster process (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or the store's equivalents), or as EnvVar in "
    "Lakehouse(storage_options=...)."
)
_EXPIRED = (
    "The credentials have expired. Sign in again, or use a profile or a role, which are renewed by "
    "themselves; static session tokens are not."
)
_WRONG_KEY = (
    "The store does not know the access key, or the secret key belongs to another one. Check "
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the endpoint: environment and profile of the "
    "Dagster process, then Lakehouse(storage_options=...)."
)
_CLOCK = "The clock of this machine is wrong: set it, the store refuses signatures of another time."
_DENIED = (
    "Give the identity of the Dagster process access to the lakehouse: s3:GetObject, s3:PutObject, "
    "s3:DeleteObject and s3:AbortMultipartUpload on its files and s3:ListBucket on the bucket, and "
    "the use of the KMS key if it has one. Without s3:ListBucket, a missing file is denied, too."
)
_NO_BUCKET = (
    "There is no such bucket or container here: create it, or correct the lakehouse uri, the "
    "endpoint or the account."
)
_REGION = (
    "The bucket is in another region than the one that was asked: set AWS_REGION to the region of "
    "the bucket, in the environment or in Lakehouse(storage_options=...)."
)
_BUSY = (
    "The store is overloaded or asks for fewer requests. The next tick or run tries again; if it "
    "lasts, look at the store's status and at who else uses the bucket."
)
_SLOW = (
    "The store did not answer in time. The next tick or run tries again; if it lasts, check the "
    "network and the store. On a slow line, set `timeout` in Lakehouse(storage_options=...)."
)
_UNREACHABLE = (
    "Check that the store runs and can be reached from this machine: endpoint, port, name "
    "resolution, proxy, firewall. The next tick or run tries again."
)
_NO_SPACE = "The disk is full, or its quota is: free space. The next tick or run tries again."
_READ_ONLY = (
    "Check the permissions: the user of the Dagster process may not read or write there. A "
    "read-only mount looks the same."
)
_SCHEME = "A lakehouse is a directory, or a uri that begins with s3://, gs:// or abfss://."
MISSING_FILE = (
    "A file of the table is gone: somebody, or a lifecycle rule of the bucket, deleted it. Restore "
    "it from a backup or an older version of the object; else rebuild the dataset."
)

_Kind = tuple[type[StorageError], str | None]

_CODES: dict[str, _Kind] = {
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
        (StoreCredentialsError, _EXPIRED),
    ),
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidClientTokenId",
            "InvalidToken",
            "InvalidSecurity",
            "XAdminUserNotFound",
            "AuthenticationFailed",
            "NoAuthenticationInformation",
            "InvalidAuthenticationInfo",
        ),
        (StoreCredentialsError, _WRONG_KEY),
    ),
    "RequestTimeTooSkewed": (StoreCredentialsError, _CLOCK),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AllAccessDisabled",
            "AccountProblem",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "KMS.AccessDeniedException",
        ),
        (StoreAccessError, _DENIED),
    ),
    **dict.fromkeys(
        ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "FilesystemNotFound"),
        (StoreLocationError, _NO_BUCKET),
    ),
    **dict.fromkeys(
        (
            "PermanentRedirect",
            "TemporaryRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ),
        (StoreLocationError, _REGION),
    ),
    **dict.fromkeys(
        ("SlowDown", "ServiceUnavailable", "InternalError", "ServerBusy", "OperationAborted"),
        (StoreUnavailableError, _BUSY),
    ),
    "RequestTimeout": (StoreUnavailableError, _SLOW),
}
"""Error codes of S3, and of Azure where they differ."""

_STATUSES: dict[int, _Kind] = {
    301: (StoreLocationError, _REGION),
    307: (StoreLocationError, _REGION),
    401: (StoreCredentialsError, _WRONG_KEY),
    403: (StoreAccessError, _DENIED),
    408: (StoreUnavailableError, _SLOW),
    429: (StoreUnavailableError, _BUSY),
}

_ABSENT_CODES = ("", "NoSuchKey", "NotFound", "BlobNotFound", "PathNotFound", "NoSuchVersion")
"""Codes by which a store says that one file is absent; others say that more is wrong."""

_TEXTS: tuple[tuple[re.Pattern[str], str, _Kind], ...] = tuple(
    (re.compile(pattern), reason, kind)
    for pattern, reason, kind in (
        (
            r"http://169\.254\.169\.254",
            "no credentials were found",
            (StoreCredentialsError, _NO_CREDENTIALS),
        ),
        (r"redirect without LOCATION", "301 redirect", (StoreLocationError, _REGION)),
        (
            r"TimedOut|operation timed out|kind: Timeout",
            "no answer in time",
            (StoreUnavailableError, _SLOW),
        ),
        (r"[Cc]onnection ?[Rr]efused", "connection refused", (StoreUnavailableError, _UNREACHABLE)),
        (
            r"dns error|failed to lookup address",
            "its name can't be resolved",
            (StoreUnavailableError, _UNREACHABLE),
        ),
        (
            r"IncompleteMessage|connection closed|[Cc]onnection ?[Rr]eset|[Bb]roken ?[Pp]ipe"
            r"|[Uu]nreachable|error decoding response body|error reading a body",
            "the connection broke",
            (StoreUnavailableError, _UNREACHABLE),
        ),
        (r"error sending request", "no connection", (StoreUnavailableError, _UNREACHABLE)),
    )
)
"""Failures without an answer of the store, as obstore and delta-rs describe them."""

_ERRNOS: dict[int, _Kind] = {
    errno.ENOSPC: (StoreError, _NO_SPACE),
    errno.EDQUOT: (StoreError, _NO_SPACE),
    errno.EACCES: (StoreAccessError, _READ_ONLY),
    errno.EPERM: (StoreAccessError, _READ_ONLY),
    errno.EROFS: (StoreAccessError, _READ_ONLY),
    errno.ENOENT: (StorageError, MISSING_FILE),
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_CODE = re.compile(r"<Code>([\w.]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"status code:? *(?:\W*\s*)(\d{3}) ")
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+) in ")
_XML = re.compile(r"<\?xml.*|<Error>.*", re.DOTALL)
_PROVIDER = re.compile(r"credential provider: \w+: ([^\n]*)")
_UNKNOWN_SCHEME = re.compile(r"Unknown scheme|Unable to recognise URL")
_SCHEMES = re.compile(r"\. Known schemes: \S*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_DEBUG = "Debug source:"
_CAUSE = "↳"
_TEXT_MAX = 600


@dataclass(frozen=True)
class Diagnosis:
    """What an error means.

    Args:
        kind: Class of our error.
        reason: What the store said, in one line without secrets.
        hint: The cure; None if the error does not tell.
        code: Error code or status of the store; empty if it sent none.
    """

    kind: type[StorageError]
    reason: str
    hint: str | None
    code: str = ""


def diagnosed(text: str, number: int | None = None) -> Diagnosis | None:
    """Return what the text of an error means; None if it is no failure of a store.

    Args:
        text: Text of the error.
        number: Its error number, if the operating system gave one.
    """
    text = _COLOURS.sub("", text)
    if _UNKNOWN_SCHEME.search(text):
        return Diagnosis(StorageError, one_line(text), _SCHEME)
    provider = _PROVIDER.search(text)
    if provider is not None:  # its error says what to do
        return Diagnosis(StoreCredentialsError, one_line(provider[1]), None)
    return _by_answer(text) or _by_description(text) or _by_number(text, number)


def _by_answer(text: str) -> Diagnosis | None:
    code, status = code_of(text), _STATUS.search(text)
    if not code and status is None:
        return None
    number = int(status[1]) if status else None
    message = _MESSAGE.search(text)
    said = [str(number)] if number else []
    said += [code] if code else []
    said += [f"({message[1]})"] if message and message[1] else []
    kind, hint = _of_answer(code, number)
    return Diagnosis(kind, _of_request(text, " ".join(said)), hint, code or str(number))


def _by_description(text: str) -> Diagnosis | None:
    for pattern, reason, (kind, hint) in _TEXTS:
        if pattern.search(text):
            return Diagnosis(kind, _of_request(text, reason), hint)
    return None


def _by_number(text: str, number: int | None) -> Diagnosis | None:
    found = _OS_ERROR.search(text)
    number = number if number is not None or found is None else int(found[1] or found[2])
    if number not in _ERRNOS:
        return None
    kind, hint = _ERRNOS[number]
    return Diagnosis(kind, one_line(text), hint, errno.errorcode[number])


def _of_request(text: str, said: str) -> str:
    request = _REQUEST.search(text)
    asked = f"{request[1]} {without_secrets(request[2])}: " if request else ""
    return shown(f"{asked}{said}", _TEXT_MAX)


def _of_answer(code: str, status: int | None) -> _Kind:
    if code in _CODES:
        return _CODES[code]
    if code in _ABSENT_CODES and status == 404:
        return StorageError, MISSING_FILE
    if status in _STATUSES:
        return _STATUSES[status]
    if status is not None and status >= 500:
        return StoreUnavailableError, _BUSY
    return StoreError, None


def says_absent(text: str) -> bool:
    """Return whether a store that did not find a file says that only this file is absent."""
    return code_of(text) in _ABSENT_CODES


def code_of(text: str) -> str:
    """Return the error code in an answer in XML; empty if there is none."""
    found = _CODE.search(text)
    return found[1] if found else ""


def one_line(text: str) -> str:
    """Return the text of an error and its causes on one line, without traces and secrets.

    delta-rs puts each cause on a line of its own: "Permission denied" is in the last one. User and
    query of a URL are removed: they may be a password and a signature. Of an answer of S3 in XML,
    code and message stay.
    """
    text = without_secrets(_SCHEMES.sub("", _COLOURS.sub("", text))).strip()
    code, message = code_of(text), _MESSAGE.search(text)
    first, *others = _XML.sub("", text.partition(_DEBUG)[0]).splitlines() or [""]
    causes = [line.strip()[1:].strip() for line in others if line.strip().startswith(_CAUSE)]
    said = [f"{code} ({message[1]})" if message else code] if code else []
    parts = [part.rstrip(":, ") for part in (first.strip(), *causes, *said)]
    return shown(": ".join(part for part in parts if part), _TEXT_MAX).rstrip(".")
