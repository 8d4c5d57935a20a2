"""What botocore raises, as the errors of this library.

A text of botocore's is repeated only where it can hold no credential: the message of a
refused signature quotes the session token, a URL may carry a password. For the same reason
the original is not chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from datazone_dagster.errors import (
    AccessDeniedError,
    CredentialsError,
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    TableNotFoundError,
    ThrottledError,
    TrimmedDataError,
)

BOTO_FAILURES = (boto.ClientError, boto.BotoCoreError, ResponseParserError)
"""All that a botocore call raises for reasons outside of this process."""

_ODD_ANSWER = (AttributeError, KeyError, TypeError, ValueError)
"""What botocore's parser, or a look into its result, raises on an answer of another shape."""

_CREDENTIAL_CODES = frozenset(
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ]
)
_ACCESS_CODES = frozenset(
    ["AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"]
)
_THROTTLE_CODES = frozenset(
    [
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ]
)
_UNAVAILABLE_CODES = frozenset(
    [
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    ]
)
_CREDENTIAL_FAILURES = (
    boto.CredentialRetrievalError,
    boto.LoginError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
)
_NETWORK_FAILURES = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)
_USER_INFO = re.compile(r"//[^/@\s\"']*@")

_UNCHANGED = "No position moved: the next drain reads on from the same place."
_TABLE_CALLS = frozenset({"DescribeTable", "ListStreams"})


def without_user_info(text: str) -> str:
    """The text without `user:password@` in the URLs in it."""
    return _USER_INFO.sub("//", text)


def origin(url: str | None) -> str:
    """Scheme, host and port of a URL: all of an endpoint that an error may show."""
    if not url:
        return "of AWS"
    parts = urlsplit(without_user_info(url))
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the service, as an error names it.

    Args:
        operation: The API operation, which is also the name of its IAM action.
        table_name: The table whose stream is read.
        region: The region in use, None if there is none.
        endpoint_url: The endpoint in use, None before it is known.
        stream_arn: The stream, for calls on one.
        shard_id: The shard, for calls that name one.
        role_arn: The role that is assumed for it, if any.
    """

    operation: str
    table_name: str
    region: str | None = None
    endpoint_url: str | None = None
    stream_arn: str | None = None
    shard_id: str | None = None
    role_arn: str | None = None

    @property
    def place(self) -> str:
        """What was called, and where."""
        shard = f" on shard {self.shard_id}" if self.shard_id else ""
        return (
            f"{self.operation}{shard} for table {self.table_name!r} "
            f"(region {self.region or 'not set'}, endpoint {origin(self.endpoint_url)})"
        )

    @property
    def resource(self) -> str:
        """The resource of the IAM action."""
        if self.operation == "DescribeTable":
            return f"table/{self.table_name}"
        return self.stream_arn or f"table/{self.table_name}/stream/*"


@contextmanager
def translated(call: Call) -> Iterator[None]:
    """Raise what goes wrong in a call, and in the reading of its answer, as our errors."""
    try:
        yield
    except BOTO_FAILURES as error:
        raise source_error(error, call) from None
    except _ODD_ANSWER as error:
        raise _no_answer(error, call) from error
    except RuntimeError as error:
        if "still expired" not in str(error):
            raise
        # botocore's word for new credentials that this clock takes for old ones.
        raise _credentials(call, "new ones are expired already") from None


def source_error(error: Exception, call: Call) -> SourceError:
    """The error of ours for what a botocore call raised. Raise it `from None`."""
    if isinstance(error, boto.ClientError):
        return _from_answer(error, call)
    if isinstance(error, _CREDENTIAL_FAILURES):
        return _credentials(call, type(error).__name__)
    if isinstance(error, boto.NoRegionError):
        return no_region(call)
    if isinstance(error, (ResponseParserError, boto.ChecksumError, *_NETWORK_FAILURES)):
        return _no_answer(error, call)
    detail = " ".join(without_user_info(str(error)).split())
    return SourceError(
        f"{call.place} can't be done: {type(error).__name__}: {detail}.",
        safe=_UNCHANGED,
        hint="Check the connection settings of the source and of DynamoDBStreamsResource.",
    )


def _no_answer(error: Exception, call: Call) -> ServiceUnavailableError:
    if isinstance(error, _NETWORK_FAILURES):
        what = f"no answer after all attempts: {without_user_info(str(error))}"
    else:
        # The parser quotes the body, which is the data of a table.
        what = f"the answer is not one of DynamoDB ({type(error).__name__})"
    return ServiceUnavailableError(
        f"{call.place}: {what}.",
        safe=_UNCHANGED,
        hint="Check region, endpoint URL and network (VPC endpoint, proxy, security group).",
    )


def no_region(call: Call) -> SourceError:
    """The error for a real endpoint without a region."""
    return SourceError(
        f"{call.operation} for table {call.table_name!r}: there is no AWS region.",
        hint='Set DynamoDBSource(region="..."), region_name of DynamoDBStreamsResource, '
        "or AWS_DEFAULT_REGION.",
    )


def _credentials(call: Call, reason: str) -> CredentialsError:
    return CredentialsError(
        f"{call.place}: there are no valid AWS credentials ({reason}).",
        safe=_UNCHANGED,
        hint="Check keys, profile or role of DynamoDBStreamsResource and of the Dagster "
        "process, whether they expired, and the clock of this machine. "
        "A region that the account has not enabled refuses them too.",
    )


def _from_answer(error: boto.ClientError, call: Call) -> SourceError:
    details = error.response.get("Error", {})
    code = details.get("Code", "")
    message = without_user_info(details.get("Message", ""))[:300]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if error.operation_name == "AssumeRole":
        return _role_refused(call, code, status)
    if code in _CREDENTIAL_CODES:
        return _credentials(call, code)
    if code in _ACCESS_CODES:
        return AccessDeniedError(
            f"{call.place}: access denied: {message}",
            safe=_UNCHANGED,
            hint=f"Allow the IAM action dynamodb:{call.operation} on {call.resource}.",
        )
    if code in _THROTTLE_CODES or status == 429:
        return ThrottledError(
            f"{call.place}: still throttled after all attempts ({code}).",
            safe=_UNCHANGED,
            hint="A shard takes two readers at most: look for other consumers of this stream.",
        )
    if code in _UNAVAILABLE_CODES or status >= 500:
        return ServiceUnavailableError(
            f"{call.place}: the service failed after all attempts ({code}, HTTP {status}).",
            safe=_UNCHANGED,
            hint="It is tried again by itself; see the AWS health page if it stays.",
        )
    return _from_stream_code(call, code, message)


def _from_stream_code(call: Call, code: str, message: str) -> SourceError:
    if code == "ExpiredIteratorException":
        return ExpiredIteratorError(
            f"{call.place}: the shard iterator has expired (they live 15 minutes).",
            safe="Nothing is lost: a new one starts after the last record read.",
            hint="If it happens often, the drain reads too slowly for the number of shards.",
        )
    if code == "TrimmedDataAccessException":
        return TrimmedDataError(
            f"{call.place}: records from before the trim horizon were asked for.",
            safe="What was landed is safe. Records that are older than 24 hours and were "
            "not landed are gone from the stream.",
            hint="Write the items concerned once more, or accept the gap: datazone-dagster "
            "accept-gap.",
        )
    if code == "ResourceNotFoundException":
        return _not_found(call)
    return SourceError(
        f"{call.place} was refused: {code}: {message}",
        safe=_UNCHANGED,
        hint="Check the arguments of the source.",
    )


def _not_found(call: Call) -> SourceError:
    if call.operation in _TABLE_CALLS:
        return TableNotFoundError(
            f"There is no table {call.table_name!r} in region {call.region or 'not set'} "
            f"(endpoint {origin(call.endpoint_url)}).",
            hint="Check table_name and region, and that the credentials are those of the "
            "table's account: a wrong region or account looks just the same.",
        )
    what = f"shard {call.shard_id}" if call.shard_id else "stream or shard"
    return ShardNotFoundError(
        f"{call.place}: the service does not know the {what} any more.",
        safe="What was landed is safe. A shard goes 24 hours after its last record.",
        hint="If it was not read to its end, write the items concerned once more, or accept the "
        "gap: datazone-dagster accept-gap.",
    )


def _role_refused(call: Call, code: str, status: int) -> SourceError:
    role = call.role_arn or "the configured role"
    if code in _ACCESS_CODES:
        return AccessDeniedError(
            f"{call.place}: {role} can't be assumed ({code}).",
            safe=_UNCHANGED,
            hint="Allow sts:AssumeRole on the role to these credentials, let its trust policy "
            "name them, and check the external id.",
        )
    if code in _THROTTLE_CODES or status >= 500:
        return ServiceUnavailableError(
            f"{call.place}: STS did not give credentials for {role} ({code}).",
            safe=_UNCHANGED,
            hint="It is tried again by itself.",
        )
    return CredentialsError(
        f"{call.place}: STS refused to give credentials for {role} ({code}).",
        safe=_UNCHANGED,
        hint="Check the credentials that assume the role, and role_arn.",
    )
