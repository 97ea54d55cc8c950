"""A small knowledge base of three documents and what answers from it (a test file with another defines its own)."""

import pytest

from rag.answer import Answerer
from rag.build import build
from rag.interpret import ExtractiveInterpreter
from rag.store import KnowledgeBase
from tests.unit.rag_cases import HashedWords, write_source


@pytest.fixture
def knowledge(tmp_path):
    build(write_source(tmp_path / "source"), tmp_path / "kb", HashedWords())
    return KnowledgeBase.open(tmp_path / "kb", HashedWords())


@pytest.fixture
def answerer(knowledge):
    return Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
