"""Failures of a store as our errors: class, code, cure, and no secret anywhere."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

import pyarrow as pa
import pytest

from datazone_dagster.delta import guarded, open_table
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_errors import store_calls
from datazone_dagster.errors import (
    StorageError,
    StoreAccessError,
    StoreCredentialsError,
    StoreError,
    StoreLocationError,
    StoreUnavailableError,
)

URL = "http://AKIAKEY:s3cr3t@store:9000/lake/t/_delta_log/0.json?X-Amz-Signature=sig"
XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>Said.</Message>'
    "<StringToSign>AWS4-HMAC s3cr3t</StringToSign></Error>"
)
OBSTORE = (
    f"Generic S3 error: Error performing GET {URL} in 1ms - Server returned non-2xx status code: "
    f"{{status}}: {XML}\n\nDebug source:\nGeneric {{{{ uri: {URL} }}}}"
)
DELTA_RS = (
    f"Kernel error -> Generic S3 error\n  \x1b[31m↳\x1b[0m Error performing GET {URL} in 1ms - "
    f"Server returned non-2xx status code\n   \x1b[31m↳\x1b[0m {{status}}\n    ↳ {XML}"
)
"""The two libraries' texts, as of obstore 0.8 and delta-rs 1.6.6."""

ANSWERS = [
    ("301 Moved Permanently", "PermanentRedirect", StoreLocationError, "AWS_REGION"),
    ("400 Bad Request", "AuthorizationHeaderMalformed", StoreLocationError, "AWS_REGION"),
    ("400 Bad Request", "ExpiredToken", StoreCredentialsError, "have expired"),
    ("403 Forbidden", "InvalidAccessKeyId", StoreCredentialsError, "does not know the access key"),
    ("403 Forbidden", "SignatureDoesNotMatch", StoreCredentialsError, "secret key"),
    ("403 Forbidden", "RequestTimeTooSkewed", StoreCredentialsError, "clock"),
    ("403 Forbidden", "AccessDenied", StoreAccessError, "s3:PutObject"),
    ("404 Not Found", "NoSuchBucket", StoreLocationError, "no such bucket"),
    ("404 Not Found", "NoSuchKey", StorageError, "A file of the table is gone"),
    ("500 Internal Server Error", "InternalError", StoreUnavailableError, "overloaded"),
    ("503 Service Unavailable", "SlowDown", StoreUnavailableError, "overloaded"),
    ("418 I'm a teapot", "Other", StoreError, "Check the store"),
]


def raised(error: Exception) -> StorageError:
    with (
        pytest.raises(StorageError) as caught,
        guarded("s3://lake/t", "Reading changes"),
    ):
        raise error
    return caught.value


def chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


@pytest.mark.parametrize("text", [OBSTORE, DELTA_RS], ids=["obstore", "delta-rs"])
@pytest.mark.parametrize(("status", "code", "kind", "cure"), ANSWERS)
def test_an_answer_is_named_with_operation_table_code_and_cure(
    text: str, status: str, code: str, kind: type[StorageError], cure: str
) -> None:
    error = raised(OSError(text.format(status=status, code=code)))
    assert type(error) is kind
    expected = f"GET http://store:9000/lake/t/_delta_log/0.json: {status[:3]} {code} (Said.)."
    assert error.what == f"Reading changes at s3://lake/t failed: {expected}"
    assert cure in error.hint
    if isinstance(error, StoreError):
        assert error.code == code


@pytest.mark.parametrize(
    ("text", "said", "kind"),
    [
        ("inner: Http(HttpError { kind: Timeout, source: TimedOut })", "no answer in time", 1),
        ("HTTP error\n ↳ operation timed out", "no answer in time", 1),
        ("kind: ConnectionRefused", "connection refused", 1),
        ("tcp connect error\n ↳ Connection refused (os error 111)", "connection refused", 1),
        ('ConnectError("dns error", ...)', "its name can't be resolved", 1),
        ("hyper::Error(IncompleteMessage)", "the connection broke", 1),
        ("inner: BareRedirect, Received redirect without LOCATION", "301 redirect", 0),
    ],
)
def test_no_answer_is_named(text: str, said: str, kind: int) -> None:
    error = raised(OSError(f"Error performing PUT {URL} in 9s - {text}"))
    assert type(error) is (StoreUnavailableError if kind else StoreLocationError)
    assert error.what.endswith(f"PUT http://store:9000/lake/t/_delta_log/0.json: {said}.")


def fail_twice(text: str) -> None:
    try:
        raise OSError(text)
    except OSError as error:
        raise OSError(text + " again") from error


@pytest.mark.parametrize("text", [OBSTORE, DELTA_RS], ids=["obstore", "delta-rs"])
def test_no_secret_in_the_error_its_causes_and_its_traceback(text: str) -> None:
    secret_text = text.format(status="403 Forbidden", code="SignatureDoesNotMatch")
    with pytest.raises(StorageError) as caught, guarded("s3://lake/t", "Landing batch 1"):
        fail_twice(secret_text)
    texts = [str(one) + repr(one) for one in chain(caught.value)]
    texts += traceback.format_exception(caught.value)
    assert len(texts) > 3
    for secret in ("s3cr3t", "AKIAKEY", "X-Amz-Signature"):
        assert not [one for one in texts if secret in one]


def test_an_absent_file_is_told_from_an_absent_bucket() -> None:
    status = "404 Not Found"
    with pytest.raises(FileNotFoundError) as absent, store_calls("s3://lake/t"):
        raise FileNotFoundError(OBSTORE.format(status=status, code="NoSuchKey"))
    assert not isinstance(absent.value, StorageError)
    assert "s3cr3t" not in str(absent.value)
    with pytest.raises(StoreLocationError), store_calls("s3://lake/t"):
        raise FileNotFoundError(OBSTORE.format(status=status, code="NoSuchBucket"))


@pytest.mark.parametrize(
    ("number", "kind", "cure"),
    [
        (errno.ENOSPC, StoreError, "disk is full"),
        (errno.EACCES, StoreAccessError, "may not read or write there"),
        (errno.EROFS, StoreAccessError, "may not read or write there"),
    ],
)
def test_a_local_disk(number: int, kind: type[StorageError], cure: str) -> None:
    for error in (OSError(number, "said"), OSError(f"Can't write /x: said (os error {number})")):
        found = raised(error)
        assert type(found) is kind
        assert cure in found.hint


def test_a_store_that_is_not_there() -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "max_retries": "0",
    }
    for call in (
        lambda: open_table("s3://lake/t", options, "dataset"),
        lambda: TableStore("s3://lake/t", options).read("a"),
        lambda: TableStore("s3://lake/t", options).put_if_absent("a", b""),
    ):
        with pytest.raises(StoreUnavailableError, match="connection refused") as e:
            call()
        assert isinstance(e.value, OSError)
        assert "s3cr3t" not in "".join(traceback.format_exception(e.value))


@pytest.mark.parametrize("code", ["NoSuchKey", "AccessDenied"])
def test_a_scan_of_delta_rs_fails_as_an_error_of_arrow(code: str) -> None:
    status = "404 Not Found" if code == "NoSuchKey" else "403 Forbidden"
    text = "C Data interface error: External error: Parquet error: Failed to fetch metadata: "
    error = raised(pa.ArrowInvalid(text + OBSTORE.format(status=status, code=code)))
    assert code in error.what
    with pytest.raises(pa.ArrowInvalid), guarded("s3://lake/t", "Reading changes"):
        raise pa.ArrowInvalid("Float value 1.5 was truncated converting to int64")


def test_a_provider_of_credentials_that_fails() -> None:
    # As obstore 0.12 says it.
    error = raised(
        OSError(
            "The operation lacked valid authentication credentials for path External AWS "
            "credential provider: StorageError: The profile's session has ended. Run aws sso "
            "login.\n\nDebug source:\nUnauthenticated { path }"
        )
    )
    assert type(error) is StoreCredentialsError
    assert "failed: The profile's session has ended. Run aws sso login." in error.what


def test_the_inner_operation_is_named() -> None:
    error = OSError(OBSTORE.format(status="403 Forbidden", code="AccessDenied"))
    with (
        pytest.raises(StoreAccessError, match=r"^Landing batch 3 at s3://lake/log failed"),
        guarded("s3://lake", "Draining orders"),
        guarded("s3://lake/log", "Landing batch 3"),
        store_calls("s3://lake/log"),
    ):
        raise error
