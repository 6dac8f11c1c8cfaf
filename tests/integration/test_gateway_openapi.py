"""The gateway called as its OpenAPI document allows, and as it does not, on real Kafka and PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from deploy.local.stack import Stack
from services.gateway.tokens import Kind
from tests.support.gateway import BUYER, GatewayOnKafka, market_with
from tests.support.stack import fresh_database

EXAMPLES = 40
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)
# What breaks a limit of the schema may be too large for any schema to be asked, which the check by itself calls taken.
REFUSED = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, 503]
OPERATIONS = (("/v1/leads", "post"), ("/v1/leads/{lead_id}", "get"), ("/v1/answers", "post"))


@pytest.fixture(scope="module")
def gavel(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOnKafka]:
    with fresh_database(stack.database) as url:
        opened = GatewayOnKafka(stack, url, tmp_path_factory.mktemp("gateway"), market_with())
        with opened.worker(GAVEL_HTTP_RATE_PER_S="100000"):
            yield opened
        opened.close()


@pytest.fixture(scope="module")
def document(gavel: GatewayOnKafka) -> Any:
    config = SchemathesisConfig.from_dict(
        {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
    )
    return schemathesis.openapi.from_url(f"{gavel.url}/openapi.json", config=config)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_one_that_the_document_describes(
    gavel: GatewayOnKafka, document: Any, path: str, method: str, mode: GenerationMode
) -> None:
    key = gavel.key(Kind.BUYER, BUYER) if path == "/v1/answers" else gavel.key()
    checks: list[Any] = [CHECKS.get_one(name) for name in CHECKED]

    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "each example has its own"}

    @given(document[path][method].as_strategy(generation_mode=mode, headers=headers))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    def call(case: Case[Any]) -> None:
        own = {**headers, "Idempotency-Key": uuid.uuid4().hex}
        case.validate_response(case.call(headers=own), checks=checks)

    call()


def test_the_document_names_every_operation_and_none_is_open_without_a_key(
    gavel: GatewayOnKafka, document: Any
) -> None:
    found = [operation.ok() for operation in document.get_all_operations()]
    assert {(each.path, each.method) for each in found} == set(OPERATIONS)
    with gavel.client() as client:
        for path, method in OPERATIONS:
            assert client.request(method, path.replace("{lead_id}", str(uuid.UUID(int=1)))).status_code == 401
