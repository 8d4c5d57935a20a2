"""Translation of botocore's exceptions to the errors of this library.

A message of botocore is repeated only where it can't contain a credential: the message of a
refused signature quotes the session token, and a URL may contain a password. For the same
reason the original exception is not chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
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
from datazone_dagster.source.endpoints import is_local
from datazone_dagster.source.failure_codes import (
    ACCESS_CODES,
    CREDENTIAL_CODES,
    THROTTLE_CODES,
    UNAVAILABLE_CODES,
)
from datazone_dagster.text import shown

BOTO_FAILURES = (boto.ClientError, boto.BotoCoreError, ResponseParserError)
"""Exceptions of a botocore call with a cause outside this process."""

_ODD_ANSWER = (AttributeError, KeyError, TypeError, ValueError)
"""Exceptions of botocore's parser, or of access to its result, on a malformed response."""

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

_ITEM_CALLS = frozenset({"BatchGetItem", "Scan"})
_EXPORT_CALLS = frozenset({"DescribeExport", "ExportTableToPointInTime"})
_TABLE_CALLS = frozenset(
    {
        "DescribeKinesisStreamingDestination",
        "DescribeTable",
        "ListStreams",
        *_ITEM_CALLS,
        *_EXPORT_CALLS,
    }
)


def without_user_info(text: str) -> str:
    """Return the text without the `user:password@` of its URLs."""
    return _USER_INFO.sub("//", text)


def origin(url: str | None) -> str:
    """Return scheme, host and port of a URL: the part of an endpoint that an error may show."""
    if not url:
        return "of AWS"
    parts = urlsplit(without_user_info(url))
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the service, for error texts.

    Args:
        operation: API operation, which is also the name of its IAM action.
        table_name: Table whose stream is read.
        region: Region in use; None if there is none.
        endpoint_url: Endpoint in use; None before it is known.
        stream_arn: Stream, for calls on a stream.
        shard_id: Shard, for calls that name one.
        role_arn: Role that is assumed for the call; None without one.
        tag: Tag of the tables, for calls of a search; None for calls on one table.
        service: Service in the names of IAM actions.
    """

    operation: str
    table_name: str
    region: str | None = None
    endpoint_url: str | None = None
    stream_arn: str | None = None
    shard_id: str | None = None
    role_arn: str | None = None
    tag: str | None = None
    service: Literal["dynamodb", "kinesis"] = "dynamodb"

    @property
    def subject(self) -> str:
        """Table of the call, or the tag of the tables that it looks for."""
        if self.tag is not None and not self.table_name:
            return f"the tables with the tag {self.tag}"
        return f"table {self.table_name!r}"

    @property
    def action(self) -> str:
        """IAM action of the call."""
        service = "tag" if self.operation == "GetResources" else self.service
        return f"{service}:{self.operation}"

    @property
    def summary(self) -> str:
        """Operation, shard, table, region and endpoint of the call."""
        shard = f" on shard {self.shard_id}" if self.shard_id else ""
        return (
            f"{self.operation}{shard} for {self.subject} "
            f"(region {self.region or 'not set'}, endpoint {origin(self.endpoint_url)})"
        )

    @property
    def reads_items(self) -> bool:
        """Whether the call reads items of the table, not its stream."""
        return self.operation in _ITEM_CALLS

    @property
    def safe(self) -> str:
        """What a failure of the call leaves as it was, for the error text."""
        if self.tag is not None:
            return "Nothing was written: the tables of the last refresh stay."
        if self.reads_items:
            return "Landed rows are safe: the scan goes on with the page that failed."
        if self.operation in _EXPORT_CALLS:
            return "Nothing was landed; an export that was started goes on by itself."
        return "No position moved: the next drain continues from the same position."

    @property
    def resource(self) -> str:
        """Resource of the IAM action, below the account's ARN prefix if no ARN is known."""
        if self.operation == "GetResources":
            return "*: it can't be limited to resources"
        if self.operation in _OF_THE_TABLE or self.reads_items:
            return self._table
        if self.operation in _EXPORT_CALLS:
            below = "/export/*" if self.operation == "DescribeExport" else ""
            return f"{self._table}{below}"
        return self.stream_arn or f"table/{self.table_name}/stream/*"

    @property
    def _table(self) -> str:
        arn = self.table_name.startswith("arn:")
        return self.table_name if arn else f"table/{self.table_name}"


_OF_THE_TABLE = frozenset({"DescribeKinesisStreamingDestination", "DescribeTable"})

_STARTS_WITHOUT_ITEMS = (
    ' A stream with start="trim_horizon" or "latest" reads no items and needs neither '
    "dynamodb:Scan nor dynamodb:BatchGetItem."
)
_EXPORT_ACTIONS = (
    " An export also needs dynamodb:DescribeExport, and s3:PutObject, s3:AbortMultipartUpload and "
    "s3:PutObjectAcl on the bucket."
)
_THROTTLED_STREAM = "A shard allows two readers at most: look for other consumers of this stream."
_THROTTLED_TABLE = (
    "The read capacity of the table, or of one partition, is used up: lower snapshot_rcu, or raise "
    "the capacity. The next attempt goes on from the same page."
)


def _throttled(call: Call) -> str:
    if call.tag is not None:
        return "Other programs of the account make the same calls: refresh again."
    return _THROTTLED_TABLE if call.reads_items else _THROTTLED_STREAM


@contextmanager
def translated(call: Call) -> Iterator[None]:
    """Raise failures of a call, and of reading its response, as errors of this library.

    Raises:
        SourceError: The call failed, or its response is malformed.
    """
    try:
        yield
    except BOTO_FAILURES as error:
        raise source_error(error, call) from None
    except _ODD_ANSWER as error:
        raise _no_answer(error, call) from error
    except RecursionError as error:  # a response that is nested too deep to be parsed
        raise _no_answer(error, call) from None
    except RuntimeError as error:
        if "still expired" not in str(error):
            raise
        # botocore's message for new credentials that are expired by the clock of this machine.
        raise _credentials(call, "new credentials are already expired") from None


def source_error(error: Exception, call: Call) -> SourceError:
    """Return the error for an exception of a botocore call. Raise it `from None`."""
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
        f"{call.summary} failed: {type(error).__name__}: {detail}.",
        safe=call.safe,
        hint="Check the connection settings of the source and of DynamoDBStreamsResource.",
    )


def _no_answer(error: Exception, call: Call) -> ServiceUnavailableError:
    if isinstance(error, _NETWORK_FAILURES):
        what = f"no response after all attempts: {without_user_info(str(error))}"
    else:
        # The parser's message is left out: it quotes the body, which is a table's data.
        what = f"the response is not one of DynamoDB ({type(error).__name__})"
    hint = "Check region, endpoint URL and network (VPC endpoint, proxy, security group)."
    if is_local(call.endpoint_url or ""):
        hint = (
            "Start the server at this endpoint, such as `datazone-dagster emulator`, or correct "
            "endpoint_url and the AWS_ENDPOINT_URL variables."
        )
    return ServiceUnavailableError(f"{call.summary}: {what}.", safe=call.safe, hint=hint)


def no_region(call: Call) -> SourceError:
    """Return the error for an AWS endpoint without a region."""
    return SourceError(
        f"{call.operation} for {call.subject}: no AWS region is set.",
        hint="Set `region` of the component, or AWS_DEFAULT_REGION."
        if call.tag is not None
        else 'Set DynamoDBSource(region="..."), region_name of DynamoDBStreamsResource, '
        "or AWS_DEFAULT_REGION.",
    )


def _credentials(call: Call, reason: str) -> CredentialsError:
    return CredentialsError(
        f"{call.summary}: no valid AWS credentials ({reason}).",
        safe=call.safe,
        hint="Check keys, profile or role of DynamoDBStreamsResource and of the Dagster "
        "process, whether they have expired, and the clock of this machine. "
        "A region that the account has not enabled refuses valid credentials too.",
    )


def _from_answer(error: boto.ClientError, call: Call) -> SourceError:
    details = error.response.get("Error", {})
    code = details.get("Code", "")
    message = shown(without_user_info(details.get("Message", "")), 300)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if error.operation_name == "AssumeRole":
        return _role_refused(call, code, status)
    if code in CREDENTIAL_CODES:
        return _credentials(call, code)
    if code in ACCESS_CODES:
        return AccessDeniedError(
            f"{call.summary}: access denied: {message}",
            safe=call.safe,
            hint=f"Allow the IAM action {call.action} on {call.resource}."
            + (_STARTS_WITHOUT_ITEMS if call.reads_items else "")
            + (_EXPORT_ACTIONS if call.operation in _EXPORT_CALLS else ""),
        )
    if code in THROTTLE_CODES or status == 429:
        return ThrottledError(
            f"{call.summary}: still throttled after all attempts ({code}).",
            safe=call.safe,
            hint=_throttled(call),
        )
    if code in UNAVAILABLE_CODES or status >= 500:
        return ServiceUnavailableError(
            f"{call.summary}: the service failed after all attempts ({code}, HTTP {status}).",
            safe=call.safe,
            hint="The next attempt continues here; see the AWS health page if it persists.",
        )
    return _from_stream_code(call, code, message)


def _from_stream_code(call: Call, code: str, message: str) -> SourceError:
    if code == "ExpiredIteratorException":
        return ExpiredIteratorError(
            f"{call.summary}: the shard iterator has expired (it lives "
            f"{5 if call.service == 'kinesis' else 15} minutes).",
            safe="Nothing is lost: a new iterator starts after the last record read.",
            hint="If it happens often, the drain reads too slowly for the number of shards.",
        )
    # Kinesis calls a position that it no longer has an invalid argument.
    lost_position = call.operation == "GetShardIterator" and code == "InvalidArgumentException"
    if code == "TrimmedDataAccessException" or lost_position:
        return TrimmedDataError(
            f"{call.summary}: the position is before the trim horizon.",
            safe="Records in the change log are safe. Records that are older than the retention "
            "of the stream and are not in it are gone.",
            hint="Write the affected items again, or accept the gap: datazone-dagster accept-gap.",
        )
    if code in ("ResourceNotFoundException", "TableNotFoundException"):
        return not_found(call)
    return SourceError(
        f"{call.summary}: the service refused the call: {code}: {message}",
        safe=call.safe,
        hint="Check the arguments of the source.",
    )


def not_found(call: Call) -> SourceError:
    """Return the error for a table, stream or shard that the service does not know."""
    if call.operation in _TABLE_CALLS:
        return TableNotFoundError(
            f"There is no table {call.table_name!r} in region {call.region or 'not set'} "
            f"(endpoint {origin(call.endpoint_url)}).",
            hint="Check table_name and region, and that the credentials belong to the table's "
            "account: a wrong region or account gives the same answer.",
        )
    what = f"shard {call.shard_id}" if call.shard_id else "stream or shard"
    return ShardNotFoundError(
        f"{call.summary}: the service no longer knows the {what}.",
        safe="Records in the change log are safe. A shard disappears once its last record is past "
        "the retention of the stream.",
        hint="If the shard was not read to its end, write the affected items again, or accept "
        "the gap: datazone-dagster accept-gap.",
    )


def _role_refused(call: Call, code: str, status: int) -> SourceError:
    role = call.role_arn or "the configured role"
    if code in ACCESS_CODES:
        return AccessDeniedError(
            f"{call.summary}: {role} can't be assumed ({code}).",
            safe=call.safe,
            hint="Allow these credentials sts:AssumeRole on the role, name them in the role's "
            "trust policy, and check the external id.",
        )
    if code in THROTTLE_CODES or status >= 500:
        return ServiceUnavailableError(
            f"{call.summary}: STS did not return credentials for {role} ({code}).",
            safe=call.safe,
            hint="The next drain tries again.",
        )
    return CredentialsError(
        f"{call.summary}: STS refused credentials for {role} ({code}).",
        safe=call.safe,
        hint="Check the credentials that assume the role, and role_arn.",
    )
