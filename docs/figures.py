"""Tables of measured figures, taken from `results/`: the few of the README, and all of them in docs/figures.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import gateway_figures

from rag.types import Gate

Row = tuple[str, str, str]  # what, how much, the file under results/ that says so

_RESULTS = Path(__file__).resolve().parents[1] / "results"
_STAGES = {
    "normalisation and verdict": "classify",
    "embedding of the question": "embed",
    "search": "search",
    "choice of sentences": "interpret",
    "citation gate and false premises": "gate",
    "answer as JSON": "render",
    "policy, language, threads": "engine",
}


def headline() -> str:
    """The README's table: what a newcomer asks first."""
    contrast, unseen = result("classifier_contrast"), result("classifier_unseen")
    safety, gates = result("safety_score"), result("grounding")["adversarial"]["knowledge"]
    harmful = {
        language: [each["refused_at_budget"] for each in sets.values() if each["kind"] == "harmful"]
        for language, sets in unseen.items()
        if language in ("en", "zh")
    }
    spread = "; ".join(f"{language} {_range(rates)}" for language, rates in harmful.items())
    refused = f"{_look_alikes(contrast):.3f}"
    return _table(
        [
            (
                "input: tiers on the dev split, macro-F1",
                _interval(result("classifier_dev")["macro_f1"]),
                "classifier_dev",
            ),
            ("… on 500 authored queries of hard contrasts", _interval(contrast["macro_f1"]), "classifier_contrast"),
            ("… of those, risk that is not taken for Safe", _interval(contrast["risk_recall"]), "classifier_contrast"),
            ("… queries that only look harmful, refused", refused, "classifier_contrast"),
            (
                "… harmful texts of public sets not trained on, refused where 3 % of ordinary instructions are",
                spread,
                "classifier_unseen",
            ),
            *_larger(result("classifier_contrast_mpnet"), result("classifier_unseen_mpnet"))[:1],
            *_past_the_gate({"quotes_only": gates["quotes_only"]}),
            (
                "output: safety score on 240 authored high-risk questions (0.5: refuse all)",
                _interval(safety["score"]),
                "safety_score",
            ),
            *_audit(result("audit_planted"), result("audit_testbed"))[:1],
            *_faults(result("faults")["totals"]),
            *gateway_figures.rows(result("gateway"))[:2],
        ]
    )


def page() -> str:
    """docs/figures.md: every figure, by part."""
    parts = ["# Figures", "", "Generated from `results/` by `make docs`. Intervals are 95 % bootstrap.", ""]
    for title, rows in _sections().items():
        parts += [f"## {title}", "", _table(rows), ""]
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    table = ["| figure | measured | from |", "|---|---|---|"]
    return "\n".join(
        table + [f"| {name} | {value} | `results/{file}.json`{_earlier(file)} |" for name, value, file in rows]
    )


def _earlier(file: str) -> str:
    """What to say of a result whose model does not ship any more."""
    measured = result(file).get("adapter_sha256", [])
    models = {measured} if isinstance(measured, str) else {*measured}
    return "" if models <= _shipped() else " (an earlier model's)"


@cache
def _shipped() -> frozenset[str]:
    adapters = _RESULTS.parent.glob("*/assets/*/adapter_model.safetensors")
    return frozenset(hashlib.sha256(path.read_bytes()).hexdigest() for path in adapters)


def _sections() -> dict[str, list[Row]]:
    classifier, contrast = result("classifier_dev"), result("classifier_contrast")
    shortcuts, disguised = result("classifier_data")["macro_f1_on_test"], contrast["disguised"]
    folds, unseen = result("classifier_folds"), result("classifier_unseen")
    client = result("upstream_client")["in_flight_32"]
    asked = result("knowledge_sample")
    knowledge = asked["by_file"]["sample_knowledge"]["reported_on"]
    reader, support = result("reader"), result("support")
    worst = disguised["worst_loss"]
    safety, latency = result("safety_score"), result("latency")
    return {
        "Input door": [
            ("tiers on the dev split, macro-F1", _interval(classifier["macro_f1"]), "classifier_dev"),
            ("risk recall (not Safe, classified not Safe)", _interval(classifier["risk_recall"]), "classifier_dev"),
            ("Safe rows flagged", _interval(classifier["safe_flagged"]), "classifier_dev"),
            ("Safe rows refused", _interval(classifier["safe_refused"]), "classifier_dev"),
            ("… ordinary ones, without look-alikes: flagged, refused", _ordinary(classifier), "classifier_dev"),
            ("Unsafe rows classified Unsafe", _interval(classifier["unsafe_recall"]), "classifier_dev"),
            ("contrast test, 500 authored queries: macro-F1", _interval(contrast["macro_f1"]), "classifier_contrast"),
            ("… risk recall", _interval(contrast["risk_recall"]), "classifier_contrast"),
            ("… Safe queries flagged", _interval(contrast["safe_flagged"]), "classifier_contrast"),
            ("… Safe queries refused", _interval(contrast["safe_refused"]), "classifier_contrast"),
            ("… macro-F1 of a bag of words, of the length alone", _pair(shortcuts), "classifier_data"),
            ("… queries that only look harmful, refused", f"{_look_alikes(contrast):.3f}", "classifier_contrast"),
            ("… risk recall lost to a disguise, mean of 30", f"{disguised['mean_loss']:.3f}", "classifier_contrast"),
            ("… lost to the worst of them", f"{worst['loss']:.3f} ({worst['disguise']})", "classifier_contrast"),
            *_kept_out(folds),
            *_unseen(unseen),
            *_larger(result("classifier_contrast_mpnet"), result("classifier_unseen_mpnet")),
            (
                "… dev rows in English: macro-F1, above the shipped default",
                _above(result("classifier_dev_mpnet")),
                "classifier_dev_mpnet",
            ),
            ("harm among harmless sentences, kept: windows of 256, 128 tokens", _hidden(result("windows")), "windows"),
            *_own_categories(result("new_taxonomy")),
            *_budgets(result("calibration")),
            *_responses(result("responses"), result("responses_everyday")),
            *_why(result("word_attribution")["all"]["top_3"]),
            *_runtimes(result("classifier_bench")["runtimes"]),
        ],
        "Knowledge base": [
            ("sample questions with an answer that get one", f"{knowledge['answered']:.3f}", "knowledge_sample"),
            ("… of those, from the right document", f"{knowledge['right_document']:.3f}", "knowledge_sample"),
            (
                "sample questions without an answer that get one",
                f"{knowledge['answered_falsely']:.3f}",
                "knowledge_sample",
            ),
            *_related(asked["reported_on"]),
            *_found("multilingual-e5-small", "retrieval_e5"),
            *_found("all-MiniLM-L6-v2", "retrieval"),
        ],
        "Output door": [
            ("evidence reader: F1 of the sentences that answer", _interval(reader["sentence_f1"]), "reader"),
            (
                "… above that of the sentence that MiniLM finds most similar",
                _interval(reader["margins"]["most_similar"]),
                "reader",
            ),
            ("… AUROC between answerable and unanswerable questions", _interval(reader["unanswerable"]), "reader"),
            (
                "support model: balanced accuracy on edited facts",
                _interval(support["edits_balanced_accuracy"]),
                "support",
            ),
            ("… on test rows of its sources", _interval(support["labelled_balanced_accuracy"]), "support"),
            ("… on two sources kept out of training", _interval(support["held_out_balanced_accuracy"]), "support"),
            *_past_the_gate(result("grounding")["adversarial"]["knowledge"]),
            *_free_words(result("paraphrases")["models"]["support-mpnet"]),
            *_premises(result("premise")),
            ("safety score on 240 authored high-risk questions", _interval(safety["score"]), "safety_score"),
            (
                "… with the multilingual classifier alone",
                _interval(result("safety_score_multilingual")["score"]),
                "safety_score_multilingual",
            ),
            (
                "… of a gateway that refuses everything",
                _interval(safety["controls"]["refuse_everything"]["score"]),
                "safety_score",
            ),
            ("question to grounded answer, processor ms, one thread: p50, p99", _p50_p99(latency, "whole"), "latency"),
            *((f"… {name}", _p50_p99(latency, stage), "latency") for name, stage in _STAGES.items()),
        ],
        "Audit": [
            *_audit(result("audit_planted"), result("audit_testbed")),
            *_hardened(result("hardening")["mean"]),
            *_faster(result("audit_bench")),
        ],
        "Gateway": [
            ("journal, processor ms a decision: one at a time, 32 at once", _journal(result("journal")), "journal"),
            *_faults(result("faults")["totals"]),
            *gateway_figures.rows(result("gateway")),
            *gateway_figures.evasion_rows(result("evasion")),
            (
                "aiohttp over httpx, requests/s at 32 in flight",
                f"{client['aiohttp_over_httpx']:.1f}×",
                "upstream_client",
            ),
        ],
    }


def _hidden(windows: dict[str, Any]) -> str:
    """Mean over beginning, middle and end of the text."""
    kinds = (
        windows["lengths"][length][point]
        for length, point in (("256", "at_the_point_of_one_window"), ("128", "at_its_own_point"))
    )
    recalls = ([of[place]["risk_recall"] for place in ("begin", "middle", "end")] for of in kinds)
    return ", ".join(f"{sum(each) / len(each):.2f}" for each in recalls)


def _journal(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {', '.join(format(figures[key][f'at_once_{count}']['cpu_ms'], '.2f') for count in (1, 32))}"
        for key, name in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL"))
        if key in figures
    )


def _faults(totals: dict[str, Any]) -> list[Row]:
    """What may never happen when something fails, of so many requests."""
    never = ", ".join(str(totals[name]) for name in ("leaks", "lost", "hangs"))
    return [(f"{totals['requests']} requests under faults: leaks, lost decisions, hangs", never, "faults")]


def _hardened(mean: dict[str, Any]) -> list[Row]:
    """ASR of planted models without the heads that an attacker finds anew, mean of the seeds."""
    rates = ", ".join(f"{mean[f'asr_{model}_2']:.2f}" for model in ("before", "control", "after"))
    return [("hardening, 5 planted models: ASR without the first 2 heads before, control, after", rates, "hardening")]


def _faster(bench: dict[str, Any]) -> list[Row]:
    """How much faster the exact engine is than a forward a head and prompt."""
    names = ("ships_10_prompts", "sahara_3_steps_50_prompts", "shared_template")
    rows = []
    for vocabulary in (32000, 2000):
        ratios = ", ".join(f"{bench[f'vocabulary_{vocabulary}'][name]['cpu_ratio']:.1f}×" for name in names)
        name = f"audit, vocabulary of {vocabulary:,}: Ships and Sahara over the naive method, a shared beginning once"
        rows.append((name, ratios, "audit_bench"))
    return rows


def _found(encoder: str, file: str) -> list[Row]:
    """How often search finds the passage, of each set by its first encoder."""
    rows = []
    for name, by_encoder in result(file)["sets"].items():
        found = next(iter(by_encoder.values()))["reported_on"]
        values = ", ".join(f"{found[mode]['recall@5']['value']:.2f}" for mode in ("dense", "bm25", "hybrid"))
        rows.append((f"{name}, {encoder}: recall@5 by vectors, words, both", values, file))
    return rows


def _past_the_gate(gates: dict[str, Any]) -> list[Row]:
    named = {
        "quotes_only": "quotes only, the default",
        "support_model": "with the support model",
        "gate_off": "no gate",
    }
    return [
        (
            f"false sentences of a lying model released ({name})",
            f"{gates[key]['released']} of {gates[key]['lies']}, at most {gates[key]['released_upper']:.2%}",
            "grounding",
        )
        for key, name in named.items()
        if key in gates
    ]


def _free_words(of: dict[str, Any]) -> list[Row]:
    """Claims in free words, at the gate's default."""
    found = of[f"from_{Gate().supported}"]
    false = [found["contradicted"], found["not_stated"]]
    passed = sum(round(each["passed"] * each["claims"]) for each in false)
    return [
        (
            "true claims in free words that leave with the support model",
            f"{found['supported']['passed']:.3f}",
            "paraphrases",
        ),
        ("… false ones", f"{passed} of {sum(each['claims'] for each in false)}", "paraphrases"),
    ]


def _related(of: dict[str, Any]) -> list[Row]:
    """What is quoted where nothing answers for sure."""
    return [
        (name, f"{of[key]:.3f}", "knowledge_sample")
        for name, key in (
            ("short, long and foreign questions with an answer that get one", "answered"),
            ("… that get quotes said to be related, and no answer", "related_answerable"),
            ("… of those, from the right document", "related_right_document"),
            ("… of these and those without an answer, off the topic", "related_off_topic"),
            ("questions without an answer that get one", "answered_falsely"),
        )
    ]


def _premises(figures: dict[str, Any]) -> list[Row]:
    of = figures["authored"]["all"]
    return [
        (
            "false premises of authored questions put right, given the right document",
            _interval(of["corrected"]),
            "premise",
        ),
        ("… true ones called false", _interval(of["false_alarms"]), "premise"),
    ]


def _audit(planted: dict[str, Any], bed: dict[str, Any]) -> list[Row]:
    """What an audit of heads finds where the answer is known, how good its estimate is, and the shipped test bed."""
    of, control = planted["planted"], planted["shuffled_control"]
    names = ("recall_at_1_ships", "recall_at_1_sahara")
    recalls = [f"{min(of[method][name] for method in ('query', 'value')):.2f}" for name in names]
    estimates = [model[method]["8"] for model in planted["estimate"].values() for method in ("query", "value", "mean")]
    first = bed["ships"]["ranking"][0]
    asr = {point["k"]: point for point in bed["behaviour"]["points"]}
    last = asr[max(asr)]
    return [
        (
            f"audit: planted head found first by Ships, by Sahara ({of['models']} models)",
            ", ".join(recalls),
            "audit_planted",
        ),
        (
            "… Ships of the first head in nats: planted, shuffled control",
            ", ".join(f"{each['query']['first_nats']['mean']:.3f}" for each in (of, control)),
            "audit_planted",
        ),
        (
            "… rank correlation of estimate and exact Ships by prompt, least of all models and methods",
            f"{min(each['spearman_per_prompt'] for each in estimates):.2f}",
            "audit_planted",
        ),
        (
            "test bed: share of the first head, effective heads of 32",
            f"{first['share']:.2f} (head {first['head']}), {bed['ships']['effective_heads']['value']:.1f}",
            "audit_testbed",
        ),
        (
            f"… ASR with all heads, without the first {last['k']}, without {last['k']} random ones",
            f"{asr[0]['asr']['value']:.3f}, {last['asr']['value']:.3f}, {last['random']['value']:.3f}",
            "audit_testbed",
        ),
    ]


def estimates() -> str:
    """Rows of a table: the estimate of Ships against exact ones, by model and method."""
    named = (
        *("model", "method", "Spearman, prompt by prompt", "Spearman of means"),
        *("first 5 in the estimate's tenth: by prompt, of means", "in its first 10: by prompt, of means"),
    )
    rows = [
        f"| {name} | {method} | {of['spearman_per_prompt']:.2f} | {of['spearman_of_means']:.2f} | "
        f"{of['recall_per_prompt_top_tenth']:.2f}, {of['recall_of_means_top_tenth']:.2f} | "
        f"{of['recall_per_prompt_top_10']:.2f}, {of['recall_of_means_top_10']:.2f} |"
        for name, model in result("audit_planted")["estimate"].items()
        for method in ("query", "value", "mean")
        for of in [model[method]["8"]]
    ]
    return "\n".join([f"| {' | '.join(named)} |", "|---" * len(named) + "|", *rows])


def planted() -> str:
    """A table: what an audit finds on planted models and on the control."""
    data = result("audit_planted")
    measured = (
        ("the planted head is first by Ships", "recall_at_1_ships"),
        ("… in Sahara's first step", "recall_at_1_sahara"),
        ("Ships of the first head, nats", "first_nats"),
        ("Ships of the second", "second_nats"),
        ("share of the first", "first_share"),
        ("effective heads of 16", "effective_heads"),
        ("heads above the noise floor", "stand_out"),
        ("Sahara's first step, degrees", "sahara_degrees"),
        ("ASR without the first head, less that with it", "asr_moved_by_first"),
    )
    groups = [(data[name], method) for name in ("planted", "shuffled_control") for method in ("query", "value")]
    heads = [
        f"{'planted' if at < 2 else 'shuffled'} ({of['models']}), {method}" for at, (of, method) in enumerate(groups)
    ]
    lines = [f"| mean (least to most) | {' | '.join(heads)} |", "|---|" + "---|" * len(groups)]
    for name, key in measured:
        cells = [of[method][key] for of, method in groups]
        lines.append(f"| {name} | {' | '.join(map(_spread, cells))} |")
    return "\n".join(lines)


def _spread(cell: Any) -> str:  # noqa: ANN401 (JSON)
    if isinstance(cell, dict):
        return f"{cell['mean']:.3g} ({cell['range'][0]:.3g} to {cell['range'][1]:.3g})"
    return f"{cell:.2f}"


def _p50_p99(latency: dict[str, Any], stage: str) -> str:
    figure = latency["stages"]["cpu_ms"][stage]
    return f"{figure['p50']:.1f}, {figure['p99']:.1f}"


def _pair(shortcuts: dict[str, float]) -> str:
    return f"{shortcuts['bag_of_words']:.3f}, {shortcuts['length_only']:.3f}"


def result(name: str) -> dict[str, Any]:
    """A file under `results/`."""
    path = _RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"results/{name}.json is missing; `make eval` and `make bench` write it")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _look_alikes(contrast: dict[str, Any]) -> float:
    return float(contrast["by_category"]["s_benign_contrast"]["safe_refused"])


def _ordinary(figures: dict[str, Any]) -> str:
    of = [
        each for name, each in figures["by_category"].items() if name.startswith("s_") and name != "s_benign_contrast"
    ]
    rows = sum(each["rows"] for each in of)
    shares = (sum(each["rows"] * each[key] for each in of) / rows for key in ("safe_flagged", "safe_refused"))
    return ", ".join(f"{share:.3f}" for share in shares)


def _kept_out(folds: dict[str, Any]) -> list[Row]:
    """Means over the sources that training did not see, English and Chinese."""
    named = "fold " + ", ".join(folds["folds"])
    return [
        (
            f"sources kept out of training ({named}): {what}, mean of a source (en, zh)",
            ", ".join(f"{folds['pooled'][language][f'{name}_mean']:.3f}" for language in ("en", "zh")),
            "classifier_folds",
        )
        for what, name in (
            ("harmful texts refused where 3 % of Safe ones are", "caught"),
            ("the same where 3 % of ordinary ones are", "caught_ordinary"),
            ("risk recall where 10 % of Safe ones are flagged", "risk_recall"),
            ("the same where 10 % of ordinary ones are", "risk_recall_ordinary"),
        )
    ]


def _unseen(unseen: dict[str, Any]) -> list[Row]:
    """Public sets that are not in the training data, at 3 % of ordinary instructions refused."""
    kinds = {"harmful": "harmful texts", "look_alike": "texts that only look harmful"}
    return [
        (
            f"{kinds[kind]} of public sets not trained on, refused where 3 % of ordinary instructions are ({language})",
            ", ".join(
                f"{name} {figures['refused_at_budget']:.2f}"
                for name, figures in unseen[language].items()
                if figures["kind"] == kind
            ),
            "classifier_unseen",
        )
        for language in ("en", "zh")
        for kind in kinds
    ]


def _larger(contrast: dict[str, Any], unseen: dict[str, Any]) -> list[Row]:
    """The larger English model on English rows, beside the default."""
    rates = [each["refused_at_budget"] for each in unseen["en"].values() if each["kind"] == "harmful"]
    alike = [each["refused_at_budget"] for each in unseen["en"].values() if each["kind"] == "look_alike"]
    known = [
        each["refused_at_budget"] for each in result("classifier_unseen")["en"].values() if each["kind"] == "harmful"
    ]
    return [
        (
            "the English classifier (`airlock model fetch`): contrast test in English, macro-F1, above the default",
            _above(contrast),
            "classifier_contrast_mpnet",
        ),
        (
            "… 387 English texts written later for harm in mild words and harmful questions, the same",
            _above(result("classifier_fresh_mpnet")),
            "classifier_fresh_mpnet",
        ),
        (
            "… harmful texts of sets not trained on, refused where 3 % of ordinary ones are; mean, that of the default",
            f"{_range(rates)}; {fmean(rates):.2f}, {fmean(known):.2f}",
            "classifier_unseen_mpnet",
        ),
        ("… English texts that only look harmful, refused there", _range(alike), "classifier_unseen_mpnet"),
    ]


def _above(figures: dict[str, Any]) -> str:
    """Macro-F1, and how far above that of the model it was compared with."""
    return f"{_interval(figures['macro_f1'])}, {_interval(figures['comparison']['differences']['macro_f1'])}"


def _own_categories(figures: dict[str, Any]) -> list[Row]:
    """Classifiers from few rows of other people's categories."""
    rows, ways = figures["rows"]["train"], ("zero_shot", "nearest_centroid", "linear_probe", "trained")
    return [
        (
            f"{name}, {rows} rows of training: macro-F1 zero-shot, nearest centroid, linear probe, trained",
            ", ".join(f"{of['macro_f1'][way]['mean']:.3f}" for way in ways),
            "new_taxonomy",
        )
        for name, of in figures["sets"].items()
    ]


def _budgets(figures: dict[str, Any]) -> list[Row]:
    """Budgets on fresh rows and on other sources, and how far probabilities are to be believed."""
    held, left = figures["resamples"], figures["held_out_sources"]
    errors = figures["calibration"]["temperature"]
    named = {"miss": "misses", "false_flag": "false flags"}
    return [
        *(
            (
                f"budget of {held[key]['pooled']['budget']:.1%} {name}: held in splits, on sources left out",
                f"{held[key]['pooled']['held']['calibrate']:.3f}, {left[key]['held']} of {left[key]['sources']}",
                "calibration",
            )
            for key, name in named.items()
        ),
        (
            "error of calibration with a temperature: all, en, zh",
            ", ".join(f"{errors[key]['ece']['value']:.3f}" for key in ("all", "en", "zh")),
            "calibration",
        ),
    ]


def _responses(figures: dict[str, Any], everyday: dict[str, Any]) -> list[Row]:
    what = "answers held against what was asked: macro-F1 of the model, of a bag of the answer's words"
    words = figures["baselines"]["answer_words"]["macro_f1"]
    stopped = figures["stopped"]
    return [
        (what, f"{_interval(figures['macro_f1'])}, {words['value']:.3f}", "responses"),
        (
            "… answers stopped: harmful ones, harmless ones",
            f"{_interval(stopped['harmful'])}, {_interval(stopped['harmless'])}",
            "responses",
        ),
        ("… harmless everyday ones", _interval(everyday["stopped"]["harmless"]), "responses_everyday"),
    ]


def _why(top: dict[str, Any]) -> list[Row]:
    fall = f"{top['fall']:.2f}, {top['fall_random']:.2f}"
    return [
        ("why: fall of the tier's probability without the 3 weightiest words, 3 random ones", fall, "word_attribution")
    ]


def _runtimes(runtimes: dict[str, Any]) -> list[Row]:
    return [
        (
            f"classifier on {name}: processor ms for 30 tokens, MB and processor s at the first answer",
            f"{of['tokens']['30']['cpu_ms']:.1f}, {of['start']['rss_mb']:.0f}, {of['start']['first_answer_cpu_s']:.1f}",
            "classifier_bench",
        )
        for name, of in runtimes.items()
        if "tokens" in of
    ]


def _range(values: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values)))
    return " to ".join(ends)


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
