"""Requests made up from the gateway's own OpenAPI document: whatever comes, it answers as the document says."""

import pytest
import schemathesis
from e2e_cases import served
from hypothesis import given, settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi import checks as of_the_document

from guard.endpoints import OWN
from guard.proxy import Gateway
from guard.wires import PATHS
from tests.doubles import Upstream, make_guard


class Closing(Upstream):
    async def close(self):
        pass


GENERATION = GenerationConfig(deterministic=True, database="none")


@pytest.fixture(scope="module")
def document():
    """Of a gateway whose parts are doubles, on a real socket."""
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=GENERATION)))
    with served(Gateway(make_guard(), Closing())) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


# Not that valid bodies are accepted: no schema says that some text must be there to be judged.
CHECKS = [
    checks.not_a_server_error,
    of_the_document.status_code_conformance,
    of_the_document.content_type_conformance,
    of_the_document.response_headers_conformance,
    of_the_document.response_schema_conformance,
    of_the_document.negative_data_rejection,
]


def test_the_document_names_every_endpoint(document):
    named = {f"{operation.ok().method.upper()} {operation.ok().path}" for operation in document.get_all_operations()}
    assert {f"POST {path}" for path in (*OWN, *PATHS) if path in OWN or path.startswith("/v1/")} <= named


def test_no_request_of_the_documents_making_breaks_an_endpoint(document):
    for operation in document.get_all_operations():

        @settings(max_examples=10, deadline=None, database=None, derandomize=True)
        @given(case=operation.ok().as_strategy())
        def answers_as_documented(case):
            response = case.call_and_validate(checks=CHECKS)
            assert response.headers.get("x-airlock-decision") or case.path in ("/healthz", "/readyz")

        answers_as_documented()
