import copy
import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from attribution.drift import classify, verify
from attribution.fingerprint import fingerprint, load_fingerprint, profile_of
from attribution.report import save_report
from attribution.types import CheckpointError, HeadId, ReportError
from attribution.weights import tokenizer_sha256, weight_files, weights_sha256
from guard.config import load_config
from guard.errors import ConfigError
from guard.pinned import check_pinned
from tests.audit_reports import report, scores
from training.audit.cli import audit
from training.audit.report_cli import _drifted


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=8,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pinned(folder):
    return fingerprint(folder)


@pytest.fixture
def drift(model, pinned, tmp_path):
    """What became of the model after an edit of a copy."""

    def look(edit, **saving):
        edited = copy.deepcopy(model)
        with torch.no_grad():
            edited = edit(edited) or edited
        edited.save_pretrained(tmp_path / "edited", **saving)
        return verify(pinned, tmp_path / "edited")

    return look


def matrices(model):
    return [weight for weight in model.parameters() if weight.ndim > 1]


def scale_columns(model, layer=2, head=5, by=1e-5):
    model.model.layers[layer].self_attn.o_proj.weight[:, head * 8 : head * 8 + 8] *= by


def scale_rows(model):
    model.model.layers[1].self_attn.q_proj.weight[16:24] *= 1e-5


def round_rows(model, levels=127):
    for weight in matrices(model):
        step = weight.abs().amax(1, keepdim=True) / levels
        weight.copy_((weight / step).round() * step)


def round_groups(model):
    for weight in matrices(model):
        groups = weight.reshape(-1, 32)
        least, step = groups.amin(1, keepdim=True), (groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True)) / 15
        weight.copy_((((groups - least) / step).round() * step + least).reshape(weight.shape))


def project_out(model, seed=1):
    torch.manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(model.config.hidden_size), dim=0)
    for layer in model.model.layers:
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            weight -= torch.outer(direction, direction @ weight)
    weight = model.model.embed_tokens.weight
    weight -= torch.outer(weight @ direction, direction)


def add_low_rank(model, names=("q_proj", "v_proj")):
    torch.manual_seed(2)
    for layer in model.model.layers:
        for name in names:
            weight = getattr(layer.self_attn, name).weight
            weight += 0.003 * torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1])


def train(model):
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.enable_grad():
        for _ in range(3):
            ids = torch.randint(0, 160, (2, 12))
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "60KB"}])
def test_a_copy_saved_again_in_other_files_is_the_same(drift, saving, tmp_path):
    found = drift(lambda model: None, **saving)
    assert found.same
    assert found.kinds == ()
    assert (len(list((tmp_path / "edited").glob("*.safetensors"))) > 1) is bool(saving)


@pytest.mark.parametrize(
    ("edit", "kinds"),
    [
        (scale_columns, {"ablated_heads"}),
        (scale_rows, {"ablated_heads"}),
        (round_rows, {"quantized"}),
        (lambda model: round_rows(model, levels=7), {"quantized"}),
        (round_groups, {"quantized"}),
        (project_out, {"abliterated"}),
        (add_low_rank, {"fine_tuned"}),
        (lambda model: add_low_rank(model, ("o_proj",)), {"fine_tuned"}),
        (train, {"fine_tuned"}),
        (lambda model: model.bfloat16(), {"cast"}),
        (lambda model: model.half(), {"cast"}),
        (lambda model: model.bfloat16().float(), {"cast"}),
        (lambda model: model.double(), {"cast"}),
        (lambda model: (scale_columns(model), model.bfloat16())[1], {"cast", "ablated_heads"}),
        (lambda model: (project_out(model), model.bfloat16())[1], {"cast", "abliterated"}),
        (lambda model: scale_columns(model, by=0.7), {"fine_tuned"}),
    ],
)
def test_drifts_are_told_apart(drift, edit, kinds):
    found = drift(edit)
    assert not found.same
    assert set(found.kinds) == kinds
    assert found.changed > 0
    assert found.says


def test_copies_of_the_test_bed_are_told_apart(tmp_path):
    from attribution import testbed
    from attribution.checkpoint import load

    pinned = fingerprint(testbed.path())
    copies = {
        "same": lambda model: None,
        "ablated_heads": lambda model: (
            model.model.layers[1].self_attn.o_proj.weight[:, : model.config.head_dim].zero_()
        ),
        "quantized": round_rows,
        "abliterated": project_out,
        "fine_tuned": train,
    }
    for kind, edit in copies.items():
        model = load(testbed.path()).model.requires_grad_(True)
        with torch.no_grad():
            edit(model)
        model.save_pretrained(tmp_path / kind)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (testbed.path() / name).exists():
                (tmp_path / kind / name).write_bytes((testbed.path() / name).read_bytes())
        found = verify(pinned, tmp_path / kind)  # it ships in float16 and is saved in float32
        assert set(found.kinds) - {"cast"} == {kind} - {"same"}
        if kind == "same":
            assert found.says == ("38 tensors were rounded or cast to float32, no more.",)
            assert _drifted(found).splitlines() == ["drifted: cast", *found.says]


def test_what_drifted_is_said(drift, model):
    found = drift(scale_columns)
    assert found.heads == (HeadId(2, 5),)
    assert found.changed == 1
    before = model.model.layers[2].self_attn.o_proj.weight.detach()
    true = float(before[:, 40:48].norm() / before.norm())
    assert found.largest[0].name == "model.layers.2.self_attn.o_proj.weight"
    assert found.largest[0].relative == pytest.approx(true, rel=0.35)


def test_low_rank_and_one_direction_have_their_figures(drift):
    assert drift(project_out).one_direction > 0.99
    low = drift(lambda model: add_low_rank(model, ("o_proj",)))
    assert low.one_direction < 0.6
    assert low.low_rank == 1
    assert drift(train).low_rank < 0.5


def test_a_random_direction_of_each_matrix_is_no_abliteration(drift):
    def edit(model):
        torch.manual_seed(4)
        for layer in model.model.layers:
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                direction = torch.nn.functional.normalize(torch.randn(64), dim=0)
                weight -= torch.outer(direction, direction @ weight)

    assert drift(edit).kinds == ("fine_tuned",)


def test_the_configuration_is_a_part_of_it(drift):
    def edit(model):
        model.config.rope_parameters = {"rope_type": "default", "rope_theta": 5.0}

    assert drift(edit).kinds == ("config",)


def test_the_chat_template_is_a_part_of_it(folder, pinned, tmp_path):
    copied = tmp_path / "copy"
    copied.mkdir()
    for file in folder.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert verify(pinned, copied).same
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    assert verify(pinned, copied).kinds == ("tokenizer",)


TOKENIZER = {
    "tokenizer.json": '{"model": {"vocab": {"a": 0, "b": 1}}, "padding": null}',
    "tokenizer_config.json": '{"eos_token": "a", "name_or_path": "there", "chat_template": "{{ messages }}"}',
    "tokenizer.model": "one",
    "special_tokens_map.json": '{"eos_token": "a"}',
    "added_tokens.json": '{"c": 2}',
    "additional_chat_templates/tools.jinja": "{{ tools }}",
    "vocab.json": '{"a": 0}',
    "merges.txt": "a b",
}


@pytest.fixture
def spoken(tmp_path):
    """A folder with a tokenizer's files."""
    for name, content in TOKENIZER.items():
        (tmp_path / "spoken" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "spoken" / name).write_text(content)
    return tmp_path / "spoken"


@pytest.mark.parametrize("name", TOKENIZER)
def test_every_file_of_a_tokenizer_is_a_part_of_it(spoken, name):
    before = tokenizer_sha256(spoken)
    content = TOKENIZER[name]
    (spoken / name).write_text(content.translate(str.maketrans("aoc", "qqq")))
    changed = tokenizer_sha256(spoken)
    (spoken / name).unlink()
    assert len({before, changed, tokenizer_sha256(spoken)}) == 3
    (spoken / name).write_text(content)
    assert tokenizer_sha256(spoken) == before


def test_bytes_that_are_no_text_are_a_part_of_a_tokenizer(spoken):
    hashes = set()
    for content in (b"\xfe", b"\xff"):
        (spoken / "tokenizer.model").write_bytes(content)
        hashes.add(tokenizer_sha256(spoken))
    assert len(hashes) == 2


def test_where_and_how_a_tokenizer_was_written_is_no_part_of_it(spoken):
    before = tokenizer_sha256(spoken)
    changed = json.loads(TOKENIZER["tokenizer_config.json"]) | {"name_or_path": "here", "transformers_version": "9"}
    (spoken / "chat_template.jinja").write_text(changed.pop("chat_template"))
    (spoken / "tokenizer_config.json").write_text(json.dumps(changed, indent=3))
    (spoken / "tokenizer.json").write_text('{"padding": {"length": 3}, "model": {"vocab": {"b": 1, "a": 0}}}')
    (spoken / "README.md").write_text("It speaks.")
    assert tokenizer_sha256(spoken) == before


def test_a_tokenizer_that_is_saved_again_is_the_same(tmp_path):
    from transformers import AutoTokenizer

    from attribution import testbed

    AutoTokenizer.from_pretrained(testbed.path()).save_pretrained(tmp_path)
    assert tokenizer_sha256(tmp_path) == tokenizer_sha256(testbed.path())


def test_a_folder_without_a_tokenizer_has_no_hash_of_one(folder):
    assert tokenizer_sha256(folder) is None


def test_another_shape_is_another_model(pinned, tmp_path):
    LlamaForCausalLM(
        LlamaConfig(vocab_size=160, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8)
    ).save_pretrained(tmp_path / "other")
    found = verify(pinned, tmp_path / "other")
    assert found.kinds == ("other_model",)
    assert found.missing


def test_tied_heads_may_be_stored_or_not(tmp_path):
    tied = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=160, hidden_size=64, num_hidden_layers=1, num_attention_heads=8, tie_word_embeddings=True
        )
    )
    tied.save_pretrained(tmp_path / "one")
    from safetensors.torch import load_file, save_file

    (tmp_path / "two").mkdir()
    weights = load_file(tmp_path / "one" / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "two" / "model.safetensors", {"format": "pt"})
    (tmp_path / "two" / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    signed = fingerprint(tmp_path / "one")
    assert verify(signed, tmp_path / "two").same
    weights["lm_head.weight"] *= -1  # such a head is not tied when it is loaded
    save_file(weights, tmp_path / "two" / "model.safetensors", {"format": "pt"})
    assert LlamaForCausalLM.from_pretrained(tmp_path / "two").lm_head.weight.equal(weights["lm_head.weight"])
    found = verify(signed, tmp_path / "two")
    assert (found.kinds, found.extra) == (("other_model",), ("lm_head.weight",))


def test_a_fingerprint_is_small_and_read_back(pinned, tmp_path):
    save_report(pinned, tmp_path / "f.json")
    assert load_fingerprint(tmp_path / "f.json") == pinned
    assert classify(pinned, pinned).same
    data = json.loads((tmp_path / "f.json").read_text())
    next(iter(data["tensors"].values()))["sha256"] = "00" * 32
    (tmp_path / "f.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match="was changed"):
        load_fingerprint(tmp_path / "f.json")


def test_ships_are_compared(pinned):
    signed = report(layers=4, heads=8)
    held = pinned.model_copy(update={"profile": profile_of(signed)})
    assert verify(held, report=signed).same
    other = verify(held, report=report(ships=scores(planted=((3, 7, 1.0),), seed=5)))
    assert other.kinds == ("ships",)
    assert other.spearman < 0.5
    with pytest.raises(ReportError, match="no Ships"):
        verify(pinned, report=signed)
    with pytest.raises(ReportError, match="method"):
        verify(held, report=report(settings=signed.settings.model_copy(update={"method": "value"})))


def own(folder, **changes):
    """A report that says it is of a folder's weights."""
    made = report(**changes)
    about = made.model.model_copy(update={"weights_sha256": weights_sha256(weight_files(folder))})
    return made.model_copy(update={"model": about})


def test_a_report_of_other_weights_is_not_signed(folder):
    with pytest.raises(ReportError, match="other weights"):
        fingerprint(folder, report())
    assert fingerprint(folder, own(folder)).profile == profile_of(report())


def test_a_report_of_other_weights_does_not_speak_for_a_folder(model, folder, tmp_path):
    signed = fingerprint(folder, own(folder))
    assert verify(signed, folder, own(folder)).spearman == 1
    edited = copy.deepcopy(model)
    with torch.no_grad():
        train(edited)
    edited.save_pretrained(tmp_path / "edited")
    with pytest.raises(ReportError, match=r"other weights than model .*edited has; audit this one"):
        verify(signed, tmp_path / "edited", own(folder))
    found = verify(signed, tmp_path / "edited", own(tmp_path / "edited", ships=scores(planted=((3, 7, 1.0),), seed=5)))
    assert found.kinds == ("fine_tuned", "ships")


def test_a_fingerprint_that_did_not_hash_the_whole_tokenizer_is_refused(pinned, tmp_path):
    save_report(pinned, tmp_path / "f.json")
    data = json.loads((tmp_path / "f.json").read_text()) | {"schema_version": 1}
    (tmp_path / "f.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match=r"schema_version 1, .*write one with `airlock audit fingerprint`"):
        load_fingerprint(tmp_path / "f.json")


@pytest.mark.parametrize("files", [{}, {"config.json": "{"}, {"config.json": '{"num_attention_heads": 2}'}])
def test_what_is_no_checkpoint(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError):
        fingerprint(tmp_path)


def test_the_commands(model, folder, tmp_path):
    run = CliRunner().invoke
    signed = tmp_path / "f.json"
    assert run(audit, ["fingerprint", str(folder), "--out", str(signed)]).exit_code == 0
    assert run(audit, ["verify", str(folder), "--fingerprint", str(signed)]).exit_code == 0
    edited = copy.deepcopy(model)
    with torch.no_grad():
        scale_columns(edited)
    edited.save_pretrained(tmp_path / "edited")
    drifted = run(audit, ["verify", str(tmp_path / "edited"), "--fingerprint", str(signed), "--json"])
    assert drifted.exit_code == 1
    assert json.loads(drifted.stdout)["heads"] == ["2.5"]
    assert (
        "drifted: ablated_heads"
        in run(audit, ["verify", str(tmp_path / "edited"), "--fingerprint", str(signed)]).stdout
    )

    save_report(report(rich=True), tmp_path / "a.json")
    page = tmp_path / "a.html"
    assert run(audit, ["report", str(tmp_path / "a.json"), "--out", str(page)]).exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    pair = [str(tmp_path / "a.json")] * 2
    compared = run(audit, ["compare", *pair, "--out", str(tmp_path / "c.html"), "--json"])
    assert json.loads(compared.stdout)["same_weights"]
    assert (tmp_path / "c.html").exists()
    told = run(audit, ["compare", *pair, "--out", str(tmp_path / "c.html")]).stdout
    assert "same" in told
    assert told.endswith(f"wrote {tmp_path / 'c.html'}\n")
    assert json.loads(run(audit, ["schema"]).stdout)["title"] == "AuditReport"


def test_the_gateway_refuses_a_model_that_drifted(model, folder, pinned, tmp_path):
    save_report(pinned, tmp_path / "f.json")
    edited = copy.deepcopy(model)
    with torch.no_grad():
        scale_columns(edited)
    edited.save_pretrained(tmp_path / "served")
    config = tmp_path / "airlock.yaml"
    config.write_text("upstream: {fingerprint: {file: f.json, model: served}}")
    settings = load_config(config)
    assert settings.upstream.fingerprint.model == tmp_path / "served"
    with pytest.raises(ConfigError, match="drifted since it was signed \\(ablated_heads\\)"):
        check_pinned(settings.upstream)
    model.save_pretrained(tmp_path / "served")
    assert "tensors" in check_pinned(settings.upstream)
    (tmp_path / "f.json").unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        check_pinned(settings.upstream)
    assert check_pinned(load_config().upstream) == "none is pinned"


def test_tensors_that_are_gone_or_new_are_named_first(folder, pinned, tmp_path):
    now = copy.deepcopy(pinned)
    names = list(now.tensors)
    gone = names[:7]
    tensors = {f"new.{name}" if name in gone[:1] else name: now.tensors[name] for name in names if name not in gone[1:]}
    changed = names[-1]
    tensors[changed] = tensors[changed].model_copy(update={"sha256": "0" * 64})
    found = classify(pinned, now.model_copy(update={"tensors": tensors, "root": "0" * 64}))
    lines = _drifted(found).splitlines()
    told = [*(f"  {name}: missing" for name in gone[:5]), "  and 2 more missing", f"  new.{gone[0]}: new"]
    assert lines[2:9] == told
    assert lines[9].startswith(f"  {changed}: changed")


@pytest.mark.parametrize(
    "words",
    [
        ("report", "a.json", "--out", "a.json"),
        ("compare", "b.json", "a.json", "--out", "./a.json"),
        ("fingerprint", "model", "--report", "a.json", "--out", "a.json"),
    ],
)
def test_a_report_is_not_written_over(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    save_report(report(), tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()
    ended = CliRunner().invoke(audit, words)
    assert isinstance(ended.exception, ReportError)
    assert "would overwrite a file that is read" in str(ended.exception)
    assert (tmp_path / "a.json").read_bytes() == before
