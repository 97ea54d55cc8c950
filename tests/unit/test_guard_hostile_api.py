"""Requests made up from the gateway's own OpenAPI document: whatever comes, it answers as the document says."""

import schemathesis
from hypothesis import settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi import checks as of_the_document

from guard.api import ENDPOINTS
from guard.proxy import Gateway
from guard.wires import PATHS
from tests.doubles import Upstream, make_guard


class Closing(Upstream):
    async def close(self):
        pass


GATEWAY = Gateway(make_guard(), Closing())
GENERATION = GenerationConfig(deterministic=True, database="none")
DOCUMENT = schemathesis.openapi.from_asgi(
    "/openapi.json",
    GATEWAY,
    config=SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=GENERATION))),
)
# Not that valid bodies are accepted: no schema says that some text must be there to be judged.
CHECKS = [
    checks.not_a_server_error,
    of_the_document.status_code_conformance,
    of_the_document.content_type_conformance,
    of_the_document.response_headers_conformance,
    of_the_document.response_schema_conformance,
    of_the_document.negative_data_rejection,
]


def test_the_document_names_every_endpoint():
    named = {f"{operation.ok().method.upper()} {operation.ok().path}" for operation in DOCUMENT.get_all_operations()}
    assert named == {*ENDPOINTS, *(f"POST {path}" for path in PATHS if path.startswith("/v1/"))}


@DOCUMENT.parametrize()
@settings(max_examples=12)
def test_no_request_of_the_documents_making_breaks_an_endpoint(case):
    response = case.call_and_validate(checks=CHECKS)
    assert response.headers.get("x-airlock-decision") or case.path == "/healthz", "an answer without a decision"
