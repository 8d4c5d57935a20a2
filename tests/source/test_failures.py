from __future__ import annotations

import traceback

import pytest
from botocore import exceptions as boto
from botocore.stub import Stubber

from datazone_dagster import errors
from datazone_dagster.errors import SourceError
from datazone_dagster.model.shard import TRIM_HORIZON
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.failures import Call, origin, source_error
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients
from tests.source.scripted import Answer, ScriptedService, error, ok

STREAM = "arn:aws:dynamodb:us-west-2:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
SHARD = "shardId-00000000000000000001-0123456"
SECRET, TOKEN = "s3cr3t-k3y", "s3ss10n-t0k3n"


@pytest.fixture(scope="module")
def clients(running_service: ScriptedService) -> Clients:
    settings = ConnectionSettings(
        region="us-west-2",
        endpoint_url=running_service.url,
        max_attempts=1,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
    )
    return build_clients(settings)


@pytest.fixture
def client(service: ScriptedService, clients: Clients) -> BotoStreamClient:
    service.script("ListStreams", ok({"Streams": []}))
    return BotoStreamClient("orders", clients)


def _call(client: BotoStreamClient, operation: str) -> None:
    if operation in ("ListStreams", "DescribeTable"):
        client.stream_arns()
    elif operation == "DescribeStream":
        client.describe(STREAM)
    elif operation == "GetShardIterator":
        client.shard_iterator(STREAM, SHARD, TRIM_HORIZON)
    else:
        client.get_records("iterator")


def _raised(client: BotoStreamClient, operation: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        _call(client, operation)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert TOKEN not in shown
    return caught.value


OPERATIONS = ["ListStreams", "DescribeTable", "DescribeStream", "GetShardIterator", "GetRecords"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("UnrecognizedClientException", 400, errors.CredentialsError),
        ("InvalidSignatureException", 400, errors.CredentialsError),
        ("ExpiredTokenException", 400, errors.CredentialsError),
        ("MissingAuthenticationTokenException", 400, errors.CredentialsError),
        ("AccessDeniedException", 400, errors.AccessDeniedError),
        ("ThrottlingException", 400, errors.ThrottledError),
        ("LimitExceededException", 400, errors.ThrottledError),
        ("ProvisionedThroughputExceededException", 400, errors.ThrottledError),
        ("Whatever", 429, errors.ThrottledError),
        ("InternalServerError", 500, errors.ServiceUnavailableError),
        ("ServiceUnavailable", 503, errors.ServiceUnavailableError),
        ("Whatever", 502, errors.ServiceUnavailableError),
        ("ValidationException", 400, errors.SourceError),
    ],
)
def test_codes_of_every_operation(
    service: ScriptedService,
    client: BotoStreamClient,
    operation: str,
    code: str,
    status: int,
    kind: type[SourceError],
) -> None:
    service.script(operation, error(code, status))
    raised = _raised(client, operation)
    assert type(raised) is kind
    assert "'orders'" in raised.what
    assert "us-west-2" in raised.what
    assert service.url in raised.what
    assert raised.safe
    assert raised.hint


@pytest.mark.parametrize(
    ("operation", "code", "kind"),
    [
        ("GetRecords", "ExpiredIteratorException", errors.ExpiredIteratorError),
        ("GetRecords", "TrimmedDataAccessException", errors.TrimmedDataError),
        ("GetShardIterator", "TrimmedDataAccessException", errors.TrimmedDataError),
        ("GetRecords", "ResourceNotFoundException", errors.ShardNotFoundError),
        ("GetShardIterator", "ResourceNotFoundException", errors.ShardNotFoundError),
        ("DescribeStream", "ResourceNotFoundException", errors.ShardNotFoundError),
        ("ListStreams", "ResourceNotFoundException", errors.TableNotFoundError),
        ("DescribeTable", "ResourceNotFoundException", errors.TableNotFoundError),
    ],
)
def test_codes_of_streams(
    service: ScriptedService,
    client: BotoStreamClient,
    operation: str,
    code: str,
    kind: type[SourceError],
) -> None:
    service.script(operation, error(code))
    raised = _raised(client, operation)
    assert type(raised) is kind
    assert len(service.calls(operation)) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_denied_call_names_the_action_and_the_resource(
    service: ScriptedService, client: BotoStreamClient, operation: str
) -> None:
    denied = "User: arn:aws:iam::123456789012:user/dana is not authorized"
    service.script(operation, error("AccessDeniedException", 400, denied))
    raised = _raised(client, operation)
    resource = {
        "ListStreams": "table/orders/stream/*",
        "DescribeTable": "table/orders",
        "GetRecords": "table/orders/stream/*",
    }.get(operation, STREAM)
    assert f"dynamodb:{operation} on {resource}." in raised.hint
    assert "user/dana" in raised.what


def test_a_refused_signature_does_not_quote_the_token(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    quoted = f"The Canonical String should have been 'POST / x-amz-security-token:{TOKEN}'"
    service.script("GetRecords", error("InvalidSignatureException", 400, quoted))
    assert "InvalidSignatureException" in _raised(client, "GetRecords").what


def test_a_table_that_is_not_there_may_be_a_wrong_region(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script("DescribeTable", error("ResourceNotFoundException"))
    raised = _raised(client, "DescribeTable")
    assert "'orders' in region us-west-2" in raised.what
    assert "wrong region" in raised.hint


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("body", [b"[]", b"null", b"<html>", b"", b"5"])
@pytest.mark.parametrize("status", [200, 502])
def test_a_response_that_is_not_dynamodbs(
    service: ScriptedService, client: BotoStreamClient, operation: str, body: bytes, status: int
) -> None:
    service.script(operation, Answer(body, status))
    assert type(_raised(client, operation)) is errors.ServiceUnavailableError


def test_service_failures_are_retried_inside(service: ScriptedService) -> None:
    clients = build_clients(ConnectionSettings(endpoint_url=service.url, max_attempts=2))
    service.script("ListStreams", error("InternalServerError", 500), ok({"Streams": []}))
    service.script("DescribeTable", ok({"Table": {}}))
    with pytest.raises(errors.StreamDisabledError):
        BotoStreamClient("orders", clients).stream_arns()
    assert len(service.calls("ListStreams")) == 2


def test_nobody_listens() -> None:
    clients = build_clients(
        ConnectionSettings(endpoint_url="http://127.0.0.1:1", region="us-west-2", max_attempts=1)
    )
    raised = _raised(BotoStreamClient("orders", clients), "GetRecords")
    assert type(raised) is errors.ServiceUnavailableError
    assert "http://127.0.0.1:1" in raised.what


def test_no_credentials_for_a_real_endpoint() -> None:
    clients = build_clients(ConnectionSettings(region="us-west-2", max_attempts=1))
    raised = _raised(BotoStreamClient("orders", clients), "ListStreams")
    assert type(raised) is errors.CredentialsError
    assert "NoCredentialsError" in raised.what


def test_a_stubbed_session_is_read_after_the_parser(service: ScriptedService) -> None:
    clients = build_clients(ConnectionSettings(endpoint_url=service.url))
    with Stubber(clients.streams) as stub:
        stub.add_response("get_records", {"Records": [], "NextShardIterator": "next"})
        stub.add_client_error("get_records", "TrimmedDataAccessException")
        client = BotoStreamClient("orders", clients)
        assert client.get_records("i").next_iterator == "next"
        with pytest.raises(errors.TrimmedDataError):
            client.get_records("i")


CALL = Call("GetRecords", "orders", "us-west-2", "https://user:pass@proxy.example/x?y")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (boto.ReadTimeoutError(endpoint_url="http://u:pass@h/"), errors.ServiceUnavailableError),
        (boto.ProxyConnectionError(proxy_url="http://u:pass@h"), errors.ServiceUnavailableError),
        (
            boto.SSLError(endpoint_url="h", error=OSError("bad certificate")),
            errors.ServiceUnavailableError,
        ),
        (boto.NoRegionError(), errors.SourceError),
        (boto.ProfileNotFound(profile="p"), errors.CredentialsError),
        (boto.TokenRetrievalError(provider="sso", error_msg="pass"), errors.CredentialsError),
        (boto.UnauthorizedSSOTokenError(), errors.CredentialsError),
        (boto.ConfigParseError(path="~/.aws/config"), errors.SourceError),
        (boto.ParamValidationError(report="too short"), errors.SourceError),
    ],
)
def test_failures_without_a_response(raised: Exception, kind: type[SourceError]) -> None:
    ours = source_error(raised, CALL)
    assert type(ours) is kind
    assert "pass" not in str(ours)
    assert ours.hint


def test_a_server_of_this_machine_that_does_not_answer_is_to_be_started() -> None:
    refused = boto.EndpointConnectionError(endpoint_url="http://127.0.0.1:8000/")
    here = Call("DescribeTable", "orders", endpoint_url="http://127.0.0.1:8000")
    assert "datazone-dagster emulator" in source_error(refused, here).hint
    assert "VPC" in source_error(refused, CALL).hint


def test_an_endpoint_is_shown_without_its_user() -> None:
    assert origin("https://user:pass@proxy.example:8443/x?y") == "https://proxy.example:8443"
    assert origin(None) == "of AWS"


def test_a_factory_is_called_once_and_on_first_use(service: ScriptedService) -> None:
    built = build_clients(ConnectionSettings(endpoint_url=service.url))
    calls = []

    def factory() -> Clients:
        calls.append(1)
        return built

    client = BotoStreamClient("orders", factory)
    assert calls == []
    service.script("ListStreams", ok({"Streams": []}))
    service.script("DescribeTable", ok({"Table": {}}))
    for _ in range(2):
        with pytest.raises(errors.StreamDisabledError):
            client.stream_arns()
    assert calls == [1]
