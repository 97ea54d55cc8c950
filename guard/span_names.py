"""Names of spans and their attributes. OpenTelemetry has not settled those of guardrails, so they stand here alone.

`gen_ai.security.*` follows the proposal in open-telemetry/semantic-conventions-genai; what it does not name is
`airlock.*`.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
GUARDRAIL = "gen_ai.security.guardrail.name"
VERDICT = "gen_ai.security.verdict.type"
ACTION = "gen_ai.security.action.type"
RULE = "gen_ai.security.policy.rule.id"
POLICY_VERSION = "gen_ai.security.policy.version"
RISK_CATEGORY = "gen_ai.security.risk.category"
RISK_SCORE = "gen_ai.security.risk.score"

ENDPOINT = "airlock.endpoint"
DECISION = "airlock.decision"
TIER = "airlock.tier"
OUTCOME = "airlock.outcome"
CAUSE = "airlock.part_failed"
READ_SHARE = "airlock.read_share"
SHADOW_RULES = "airlock.shadow_rules"
TENANT = "airlock.tenant"
HELD_BYTES = "airlock.hold_back.bytes"
WAIT_SECONDS = "airlock.wait_seconds"

STATUS = "http.response.status_code"
ERROR = "error.type"

# Spans of the parts, by the part's name.
PARTS = {
    "classifier": "classify",
    "knowledge": "ground",
    "output": "output_check",
    "journal": "journal",
    "upstream": "upstream",
}
# What each route does, in the words of the proposal.
ACTIONS = {"forward": "allow", "ground": "modify", "refuse": "block", "hand_over": "escalate"}
