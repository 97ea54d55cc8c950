from pathlib import Path
from typing import get_args

import pytest
import yaml

from classifier.taxonomy import Taxonomy
from classifier.types import ClassifierError
from guard.config import Config, absolute, changed_settings, load_config, settings, warnings_of
from guard.errors import ConfigError
from guard.output import PatternCheck, output_checks
from guard.policy_cases import read_cases
from guard.tenants import read_keys
from guard.types import Role, Route
from guard.wires import chat, messages, responses
from tests.doubles import WordClassifier


@pytest.fixture
def write(tmp_path):
    def written(text, name="airlock.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def refusal(path=None, overrides=None):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_without_a_file_every_setting_has_its_default():
    config = load_config()
    assert config == Config()
    assert (config.journal.on_error, config.policy.on_block) == ("refuse", "refusal")
    assert set(config.policy.on_error.model_dump().values()) == {"refuse"}
    assert (config.journal.prompts, config.conversation.non_text_parts) == ("off", "refuse")
    assert config.server.host == "127.0.0.1", "listens to the machine itself only, unless told otherwise"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_file_gives_the_defaults(write, text):
    path = write(text)
    assert load_config(path).policy == Config().policy


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("upstrem: {}", "upstrem", "upstream"),
        ("server: {prt: 1}", "server.prt", "server.port"),
        ("policy: {rules: [{name: a, route: refuse, wen: {}}]}", "policy.rules.0.wen", "policy.rules.0.when"),
        (
            "policy: {rules: [{name: a, route: refuse, when: {teir: safe}}]}",
            "policy.rules.0.when.teir",
            "policy.rules.0.when.tier",
        ),
        ("answers: {categories: {c_medical: {refuze: x}}}", "answers.categories.c_medical.refuze", ".refuse"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(write, text, unknown, nearest):
    message = refusal(write(text))
    assert repr(unknown) in message
    assert f"{nearest}'" in message.partition("did you mean")[2]


def test_an_unknown_key_near_to_none_lists_the_known(write):
    message = refusal(write("server: {zzzzzz: 1}"))
    assert "did you mean" not in message
    assert all(name in message for name in ("host", "port", "max_body_bytes"))


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        ("server: {port: high}", "server.port", "'high'"),
        ("server: {port: 70000}", "server.port", "70000"),
        ("server: {read_timeout_s: 0}", "server.read_timeout_s", "0"),
        ("upstream: {base_url: localhost}", "upstream.base_url", "'localhost'"),
        ("policy: {on_error: pass}", "policy.on_error", "'pass'"),
        ("policy: {rules: [{name: a, route: allow}]}", "policy.rules.0.route", "'allow'"),
        ("policy: {rules: [{name: a, route: refuse, when: {tier: bad}}]}", "policy.rules.0.when.tier", "'bad'"),
        ("output: {unsafe_from: 1.5}", "output.unsafe_from", "1.5"),
        ("output: {hold_back: 0}", "output.hold_back", "0"),
        ("output: {patterns: [{name: a, regex: '('}]}", "output.patterns.0.regex", "'('"),
        ("output: {patterns: [{name: a, regex: 'a{99999999999}'}]}", "output.patterns.0.regex", "'a{99999999999}'"),
        (f"output: {{patterns: [{{name: a, regex: '{'(' * 2000}a{')' * 2000}'}}]}}", "output.patterns.0.regex", "((("),
        ("server: {host: ''}", "server.host", "''"),
        ("conversation: {trusted_roles: [user, sytem]}", "conversation.trusted_roles.1", "'sytem'"),
        ("conversation: {trusted_roles: [field]}", "conversation.trusted_roles.0", "'field'"),
        ("access: {keys: k}\nupstream: {api_key_env: X}\nlimits: {tenants: {'a*': {}}}", "limits.tenants", "'a*'"),
        ("access: {keys: k}\nupstream: {api_key_env: X}\nlimits: {tenants: {'': {}}}", "limits.tenants", "''"),
        ("journal: {prompts: some}", "journal.prompts", "'some'"),
        ("server: 5", "server", "5"),
    ],
)
def test_a_wrong_value_names_setting_value_and_file(write, text, setting, value):
    path = write(text)
    message = refusal(path)
    assert setting in message
    assert value in message
    assert str(path) in message


BOMB = "a0: &a0 {k: x}\n" + "\n".join(
    f"a{level}: &a{level} {{{', '.join(f'k{each}: *a{level - 1}' for each in range(9))}}}" for level in range(1, 10)
)
MERGED_BOMB = "a0: &a0 {k: x}\n" + "\n".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 10)
)
NO_YAML = {
    "a list that is open": "a: [",
    "a tab": "\tx: 1",
    "a list": "- list",
    "text": "just text",
    "not UTF-8": b"\xff\xfe\x00",
    "no date": "a: 2001-13-45",
    "a null byte": "a: \0",
    "nested too deep": "[" * 3000 + "]" * 3000,
    "an alias of itself": "server: &a {tls: *a}",
    "aliases of aliases": BOMB,
    "merges of merges": MERGED_BOMB,
    "a number out of range": "a: 1" + ":1" * 300 + ".0",
    "no bool": "a: !!bool x",
    "no integer": "a: !!int ''",
    "no time": "a: !!timestamp x",
    "no mapping": "a: !!map [x]",
}


@pytest.mark.parametrize("text", NO_YAML.values(), ids=list(NO_YAML))
def test_a_file_that_holds_no_settings_is_named(write, text):
    path = write(text)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("bomb", [BOMB, MERGED_BOMB])
def test_aliases_that_stand_for_too_much_are_one_error(write, bomb):
    path = write(bomb)
    for read in (load_config, read_cases, read_keys, Taxonomy.load):
        with pytest.raises((ConfigError, ClassifierError)) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 400
    assert "aliases (*) stand for more than 100,000 values" in refusal(path)


def test_ordinary_aliases_and_merges_work(write):
    path = write(
        "policy:\n  rules:\n"
        "  - &one {name: one, when: &when {tier: [unsafe]}, route: refuse}\n"
        "  - {<<: *one, name: two, when: {<<: *when, endpoint: [chat]}}\n"
        "  - {name: all, route: refuse}\n"
        "output: {patterns: [{name: a, regex: &long x}, {name: b, regex: *long}]}"
    )
    config = load_config(path)
    assert [rule.name for rule in config.policy.rules] == ["one", "two", "all"]
    assert config.policy.rules[1].when.tier == config.policy.rules[0].when.tier
    assert [pattern.regex for pattern in config.output.patterns] == ["x", "x"]


def test_what_is_merged_is_not_named_twice(write):
    path = write(
        "limits: {tenants: {b: &b {in_flight: 2}, a: &a {<<: *b, in_flight: 3}}, tenant: {<<: *a}}\n"
        "access: {keys: k}\nupstream: {api_key_env: X}"
    )
    assert load_config(path).limits.of("a").in_flight == 3


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(tmp_path)


def test_two_rules_of_one_name_are_refused(write):
    rules = "policy: {rules: [{name: a, route: refuse}, {name: %s, route: forward}]}"
    assert "'a'" in refusal(write(rules % "a"))
    assert [rule.route for rule in load_config(write(rules % "b")).policy.rules] == [Route.REFUSE, Route.FORWARD]
    assert "policy.rules" in refusal(write("policy: {rules: []}"))


def test_relative_paths_count_from_the_files_folder(write, tmp_path):
    config = load_config(write("journal: {path: j.db}\nknowledge: {path: /kb}\nclassifier: {model: ../m}"))
    assert config.journal.path == tmp_path / "j.db"
    assert config.knowledge.path == Path("/kb")
    assert config.classifier.model == tmp_path / "../m"


def test_overrides_win_and_their_paths_are_not_inside_the_file(write):
    path = write("server: {port: 1, host: h}\njournal: {path: j.db}")
    config = load_config(path, {"server.port": 9000, "journal.path": "k.db", "policy.on_error": "forward"})
    assert (config.server.port, config.server.host, config.policy.on_error.output) == (9000, "h", "forward")
    assert config.journal.path == Path("k.db")
    assert "'server.prt'" in refusal(path, {"server.prt": 1})
    assert "server" in refusal(write("server: 5"), {"server.port": 1})


def test_each_setting_tells_where_it_came_from(write):
    path = write("server: {port: 1, host: h}\npolicy: {rules: [{name: a, route: refuse}]}")
    overrides = {"server.port": 9000}
    origins = {row["setting"]: row for row in settings(load_config(path, overrides), path, overrides)}
    assert origins["server.port"] == {"setting": "server.port", "value": 9000, "origin": "command line"}
    assert origins["server.host"]["origin"] == origins["policy.rules"]["origin"] == "file"
    assert origins["output.hold_back"] == {"setting": "output.hold_back", "value": 240, "origin": "default"}
    assert {row["origin"] for row in settings(Config(), None)} == {"default"}


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config().server.port = 1


def test_two_patterns_of_one_name_are_refused(write):
    patterns = "output: {classifier: false, patterns: [{name: key, regex: sk-secret}, {name: %s, regex: harmless}]}"
    message = refusal(write(patterns % "key"))
    assert "output.patterns" in message
    assert "two patterns are named 'key'" in message
    checks = output_checks(load_config(write(patterns % "word")).output, WordClassifier())
    assert [finding.rule for finding in checks.check(["sk-secret", "harmless"])] == [
        "output_pattern:key",
        "output_pattern:word",
    ]


def test_a_pattern_that_cannot_be_measured_is_named_where_a_program_gives_it():
    deep = "(" * 2000 + "a" + ")" * 2000
    with pytest.raises(ConfigError, match="'deep' is nested too deep"):
        PatternCheck({"deep": deep}, 10)


def test_an_empty_host_of_the_command_line_is_refused():
    assert "server.host" in refusal(None, {"server.host": ""})


def test_tenants_with_limits_have_names_of_tenants(write):
    path = write("access: {keys: k}\nupstream: {api_key_env: X}\nlimits: {tenants: {acme-1.eu: {in_flight: 2}}}")
    assert load_config(path).limits.of("acme-1.eu").in_flight == 2


def test_trusted_roles_are_those_of_the_wires():
    known = {*get_args(chat._Message.model_fields["role"].annotation), *responses._ROLES}
    known |= {*get_args(messages._Message.model_fields["role"].annotation)}
    assert set(get_args(Role)) == known


def test_trusted_users_are_a_warning():
    (said,) = warnings_of(load_config(None, {"conversation.trusted_roles": ["system", "user"]}))
    assert "conversation.trusted_roles" in said
    assert warnings_of(Config()) == []


RATE = {"limits.total.requests": "8/minute"}


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        (RATE | {"server.workers": 2}, True),
        (RATE, False),
        ({"server.workers": 2}, False),
        (RATE | {"server.workers": 2, "limits.redis_env": "REDIS"}, False),
    ],
)
def test_rates_that_each_worker_counts_by_itself_are_a_warning(settings, warned):
    said = warnings_of(load_config(None, settings))
    assert len(said) == warned
    if warned:
        assert "server.workers = 2" in said[0]
        assert "limits.redis_env" in said[0]


KEYS = {"access.keys": "keys.yaml", "upstream.api_key_env": "KEY"}


def by(**when):
    return {"model": "runs/a", "when": when}


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        (
            {"classifiers": {"a": by(tenant="shop")}},
            "classifiers.a asks for the tenant shop and access.keys is not set",
        ),
        (
            {"policy.rules": [{"name": "r", "when": {"tenant": "shop"}, "route": "refuse"}]},
            "policy rule 'r' asks for the tenant shop",
        ),
        ({"classifiers": {"a": by(tenant="shop")}} | KEYS, None),
        ({"classifiers": {"a": by(model="*"), "b": by(model="x", endpoint="chat")}}, "classifiers.b judges nothing"),
        ({"classifiers": {"a": by(model="x", endpoint="chat"), "b": by(model="*")}}, None),
        ({"classifiers": {"a": by(tenant="shop"), "b": by(tenant=["shop", "desk"])}} | KEYS, None),
    ],
)
def test_what_no_request_can_match_is_a_warning(settings, warned):
    said = warnings_of(load_config(None, settings))
    assert len(said) == (warned is not None)
    assert not warned or said[0].startswith(warned)


def test_the_order_of_classifiers_is_a_setting():
    chat, shop = by(endpoint="chat"), by(model="shop")
    one, other = (load_config(None, {"classifiers": each}) for each in ({"a": chat, "b": shop}, {"b": shop, "a": chat}))
    assert (changed_settings(one, one), changed_settings(one, other)) == ([], ["classifiers"])


def test_a_path_may_be_a_text(tmp_path):
    path = tmp_path / "airlock.yaml"
    path.write_text("journal: {path: j.db}")
    assert load_config(str(path)) == load_config(path)
    assert load_config(str(path)).journal.path == tmp_path / "j.db"


@pytest.mark.parametrize(("setting", "value"), [("server.port", 9000), ("server.host", "::")])
def test_an_address_on_the_command_line_beside_a_socket_is_refused(tmp_path, setting, value):
    path = tmp_path / "airlock.yaml"
    path.write_text("server: {socket: a.sock, port: 8080, host: 127.0.0.1}")
    assert load_config(path, {"server.workers": 2}).server.socket == tmp_path / "a.sock"
    with pytest.raises(ConfigError, match=rf"{setting} = {value} .*--{setting[7:]}.*server\.socket = a\.sock"):
        load_config(path, {setting: value})


EVERY_PATH = """
access: {keys: k.yaml}
upstream: {api_key_env: X, fingerprint: {file: f.json, model: ck}}
server: {socket: s.sock, tls: {certificate: c.pem, key: k.pem, client_ca: ca.pem}}
classifier: {model: m, encoder: e, exports: x, languages: {en: {model: lm, encoder: le}}}
classifiers: {other: {model: om, when: {tenant: a}}}
knowledge: {path: kb, encoder: ke, reranker: r}
interpretation: {kind: generative, model: im, base: ib}
grounding: {support_model: sm, support_encoder: se}
output: {responses: {model: rm, encoder: re}}
journal: {path: j.db}
"""


@pytest.mark.parametrize("text", [EVERY_PATH, "", "interpretation: {kind: reader, model: shipped, encoder: re}"])
def test_what_is_shown_means_the_same_wherever_it_is_saved(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    path = Path("conf/a.yaml")
    path.write_text(text)
    shown = absolute(load_config(path))
    assert shown.journal.path == tmp_path / ("conf/j.db" if text == EVERY_PATH else "airlock.db")
    for saved in (Path("conf/b.yaml"), Path("c.yaml")):
        saved.write_text(yaml.safe_dump(shown.model_dump(mode="json")))
        assert load_config(saved) == shown


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ('journal: {url: "postgresql://u:hunter2@h/db"}', "journal.url"),
        ('journal: {url: "postgresql://u:hun@hunter2@h/db"}', "journal.url"),
        ('journal: {url: "postgresql://u:hun/hunter2@h/db"}', "journal.url"),
        ('journal: {url: "postgresql://h/db?sslpassword=hunter2"}', "journal.url"),
        ('journal: {url: "postgresql://h/db?user=u&Password=hunter2", path: a.db}', "journal.url"),
        ('journal: {url: "postgresql://h/db?passwd=hunter2"}', "journal.url"),
        ('journal: {url: "u:hunter2@h/db"}', "journal.url"),
        ('journal: "postgresql://u:hunter2@h/db"', "journal"),
        ('upstream: {base_url: "http://u:hunter2@h/v1"}', "upstream.base_url"),
        ('upstream: {base_url: "http://hunter2@h/v1"}', "upstream.base_url"),
        ('upstream: {base_url: "u:hunter2@h/v1"}', "upstream.base_url"),
        ('tracing: {endpoint: "http://u:hunter2@h/v1/traces"}', "tracing.endpoint"),
        ('limits: {redis_env: "redis://:hunter2@h:6379"}', "limits.redis_env"),
        ('upstream: {api_key_env: "sk-hunter2"}', "upstream.api_key_env"),
        ('journal: {url: "postgresql://u:hunter2@h/db', "line 1"),
        ("journal: {url: postgresql://u:hunter2@h/db: x}", "line 1"),
    ],
)
def test_a_password_has_no_place_in_a_configuration_and_no_error_shows_it(write, text, setting):
    said = refusal(write(text))
    assert "airlock.yaml" in said
    assert setting in said
    assert "hunter2" not in said


def test_a_passfile_and_a_name_without_password_are_no_secrets(write):
    url = "postgresql://airlock@h/db?passfile=/run/pass&sslkey=k.pem&application_name=pass"
    assert load_config(write(f"journal: {{url: '{url}'}}")).journal.url == url


@pytest.mark.parametrize("setting", ["upstream.api_key_env", "limits.redis_env", "journal.key_env"])
def test_an_empty_name_of_a_variable_is_not_taken_for_none(setting):
    # With `access.keys`, no key of the model's server would mean that the keys of clients are sent on.
    said = refusal(overrides={setting: ""})
    assert setting in said
    assert "null" in said


@pytest.mark.parametrize(
    ("setting", "value", "needed"),
    [
        ("classifier.threads", "two", "= 'two': need a whole number"),
        ("classifier.deadline_s", "soon", "= 'soon': need a number"),
        ("knowledge.passages", 0, "= 0: need a number from 1 on"),
        ("classifier.deadline_s", 0, "= 0: need a number above 0.0"),
        ("server.port", 99999, "= 99999: need a number up to 65535"),
        ("knowledge.mode", "fast", "= 'fast': need 'dense', 'bm25' or 'hybrid'"),
        ("journal.prompts", 3, "= 3: need 'off', 'hashed', 'redacted' or 'full'"),
        ("server.watch", "perhaps", "= 'perhaps': need true or false"),
        ("classifier.languages", 3, "= 3: need a mapping of names to values"),
        ("policy.rules", 3, "= 3: need a list"),
        ("access.keys", 5, "= 5: need a path"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_what_it_would_have_to_be(setting, value, needed):
    with pytest.raises(ConfigError) as refused:
        load_config(None, {setting: value})
    assert str(refused.value) == f"{setting} {needed}"
