"""Which interpretation and support model a configuration gives, without training one."""

import sys
import types
from pathlib import Path

import pytest
from peft import LoraConfig

from classifier.types import MINILM, MPNET
from classifier.weights import fetched_folder
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import gate, load_interpreter, load_support, reader_folder, support_folder
from guard.config import Config, load_config
from guard.errors import ConfigError
from guard.fields import SHIPPED
from guard.knowledge import Endpoint, Generative, Reader, Similarity
from rag.interpret import ExtractiveInterpreter
from rag.pairs import OUTPUTS, PairModel, PairSettings
from rag.reader import ReaderInterpreter
from rag.support import SupportReader
from rag.types import DEFAULT_GATE, KnowledgeError
from tests.doubles import make_guard
from tests.pair_cases import tiny
from tests.unit.rag_cases import HashedWords

ENDPOINT = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model_name": "m"}


def section(tmp_path, text):
    path = tmp_path / "airlock.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def loaded(interpretation):
    config = load_config(None, {"interpretation": interpretation})
    return load_interpreter(config, HashedWords(), Encoders(config))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An untrained reader and support model on the tiny encoder."""
    folder = tmp_path_factory.mktemp("models")
    lora = LoraConfig(r=2, target_modules=["query"])
    for task, outputs in OUTPUTS.items():
        PairModel.untrained(tiny(), outputs, lora).save(folder / task)
        PairSettings(task, "toy", tiny().name, tiny().sha256, 48).save(folder / task)
    return folder


# The section


def test_each_kind_has_its_settings(tmp_path):
    assert section(tmp_path, "interpretation: {kind: similarity}").interpretation == Similarity()
    reader = section(tmp_path, "interpretation: {kind: reader, model: r, encoder: e}").interpretation
    assert reader == Reader(model=tmp_path / "r", encoder=str(tmp_path / "e"))
    assert section(tmp_path, "interpretation: {kind: reader}").interpretation.model == SHIPPED
    assert section(tmp_path, "interpretation: {kind: generative, model: g, base: b}").interpretation == Generative(
        model=tmp_path / "g", base=tmp_path / "b"
    )
    text = "interpretation: {kind: endpoint, base_url: 'http://a:1/v1/', model_name: m}"
    assert section(tmp_path, text).interpretation == Endpoint(base_url="http://a:1/v1", model_name="m")
    grounding = section(tmp_path, "grounding: {support_model: s, support_encoder: 'package:a/b'}").grounding
    assert (grounding.support_model, grounding.support_encoder) == (tmp_path / "s", "package:a/b")
    assert section(tmp_path, "grounding: {support_model: shipped}").grounding.support_model == SHIPPED
    assert section(tmp_path, "grounding: {support_model: null}").grounding.support_model is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{kind: magic}", ["interpretation.kind = 'magic'", "similarity, reader, generative, endpoint"]),
        ("{model: r}", ["interpretation.kind: is missing", "similarity, reader, generative, endpoint"]),
        ("{kind: reader, modle: r}", ["unknown setting 'interpretation.modle'", "'interpretation.model'"]),
        ("{kind: reader, base_url: 'http://a'}", ["unknown setting 'interpretation.base_url'", "known here: kind,"]),
        ("{kind: similarity, temperature: 0}", ["unknown setting 'interpretation.temperature'"]),
        ("{kind: generative}", ["interpretation.model: Field required"]),
        ("{kind: endpoint, base_url: 'http://a'}", ["interpretation.model_name: Field required"]),
        ("{kind: endpoint, base_url: 'ftp://a', model_name: m}", ["interpretation.base_url = 'ftp://a'", "http://"]),
        ("{kind: endpoint, base_url: 'http://u:hunter2@a', model_name: m}", ["interpretation.base_url", "api_key_env"]),
        ("{kind: endpoint, base_url: 'http://a', model_name: ''}", ["interpretation.model_name"]),
        ("{kind: endpoint, base_url: 'http://a', model_name: m, temperature: 3}", ["interpretation.temperature = 3"]),
        ("reader", ["interpretation = 'reader'"]),
    ],
)
def test_what_does_not_fit_a_kind_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        section(tmp_path, f"interpretation: {text}")
    for word in words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_default_resolves_to_what_the_switches_say():
    config = Config()
    assert isinstance(config.interpretation, Similarity | Reader)
    assert support_folder(config) in (None, support_folder(load_config(None, {"grounding.support_model": "shipped"})))
    assert reader_folder(Reader()).parts[-3:] == ("rag", "assets", "reader-e5-small")


@pytest.mark.parametrize(
    ("fetched", "encoder", "name"),
    [
        (True, None, "support-mpnet"),
        (False, None, "support-minilm"),
        (True, MINILM, "support-minilm"),
    ],
)
def test_the_larger_support_model_is_taken_where_its_encoder_is(tmp_path, monkeypatch, fetched, encoder, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    if fetched:
        weights = fetched_folder(MPNET) / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    config = load_config(None, {"grounding.support_model": "shipped", "grounding.support_encoder": encoder})
    assert support_folder(config).parts[-3:] == ("rag", "assets", name)


def test_the_gate_takes_its_own_settings_only():
    assert gate(load_config(None, {"grounding.support_model": "x", "grounding.kept": 0.25})).kept == 0.25
    assert gate(Config()) == DEFAULT_GATE


# The parts


def test_each_kind_is_built(folders, monkeypatch):
    assert isinstance(loaded({"kind": "similarity"}), ExtractiveInterpreter)
    assert isinstance(loaded({"kind": "reader", "model": str(folders / "reader")}), ReaderInterpreter)
    made = loaded(ENDPOINT)
    assert type(made).__name__ == "EndpointInterpreter"
    assert made.answer("What?", [], {}).abstained


def test_reader_and_support_model_share_an_encoder(folders):
    config = load_config(
        None,
        {
            "interpretation": {"kind": "reader", "model": str(folders / "reader")},
            "grounding.support_model": str(folders / "support"),
        },
    )
    encoders = Encoders(config)
    reader = load_interpreter(config, HashedWords(), encoders)._reader
    support = load_support(config, encoders)
    assert isinstance(support, SupportReader)
    weights = {value.data_ptr() for value in encoders.get("x", tiny().name).model.parameters()}
    for model in (reader.model, support.model):
        assert weights & {value.data_ptr() for value in model.parameters()}
    (judged,) = support.support([("rose .", "rose .")])
    assert abs(judged.supported + judged.contradicted + judged.not_stated - 1) < 1e-6
    assert load_support(load_config(None, {"grounding.support_model": None}), encoders) is None


class Scribe:
    """In the place of `rag.generative.GenerativeInterpreter`."""

    given = None

    @classmethod
    def load(cls, folder, *, threads=1, max_tokens=400, base=None):
        if folder == Path("missing"):
            raise KnowledgeError("missing has no config.json")
        made = cls()
        made.given = (folder, threads, max_tokens, base)
        return made


def test_a_generative_model_is_loaded_with_its_settings(monkeypatch):
    module = types.ModuleType("rag.generative")
    module.GenerativeInterpreter = Scribe
    monkeypatch.setitem(sys.modules, "rag.generative", module)
    made = loaded({"kind": "generative", "model": "g", "base": "b", "threads": 2, "max_tokens": 90})
    assert made.given == (Path("g"), 2, 90, Path("b"))
    with pytest.raises(ConfigError, match=r"^interpretation\.model: missing has no config\.json"):
        loaded({"kind": "generative", "model": "missing"})


def test_what_is_missing_is_named_by_its_setting(tmp_path, folders, monkeypatch):
    with pytest.raises(ConfigError, match=rf"^interpretation\.model: reader model {tmp_path} has no model\.json"):
        loaded({"kind": "reader", "model": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"^interpretation\.model: .* is a support model, not a reader model"):
        loaded({"kind": "reader", "model": str(folders / "support")})
    with pytest.raises(ConfigError, match=r"^interpretation\.encoder: encoder '/no/encoder'"):
        loaded({"kind": "reader", "model": str(folders / "reader"), "encoder": "/no/encoder"})
    config = load_config(None, {"grounding.support_model": str(tmp_path)})
    with pytest.raises(ConfigError, match=rf"^grounding\.support_model: support model {tmp_path} has no model\.json"):
        load_support(config, Encoders(config))
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"^interpretation\.api_key_env = 'NO_SUCH_KEY'"):
        loaded({**ENDPOINT, "api_key_env": "NO_SUCH_KEY"})


def test_as_many_questions_are_answered_at_once_as_configured():
    assert make_guard({"interpretation": {**ENDPOINT, "workers": 3}})._ground._turns._free == 3
    assert make_guard({"interpretation.kind": "similarity"})._ground._turns._free == 1
