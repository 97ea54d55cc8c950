"""`airlock demo`, whole: two processes of its own, every route, and the proof."""

from __future__ import annotations

import pytest


@pytest.mark.usefixtures("judgement")
def test_the_demo_takes_every_route_and_proves_it(airlock_process, capsys):
    from guard.demo import QUERIES, Row, print_rows

    said = airlock_process("demo", "--json").done().json
    rows = said["rows"]
    assert said["refused_but_reached_upstream"] == []
    assert [row["query"] for row in rows] == [query for query, _ in QUERIES]
    assert {row["route"] for row in rows} == {"forward", "ground", "refuse", "hand_over"}
    assert {row["tier"] for row in rows} == {"safe", "conditionally_safe", "focused_attention", "unsafe"}
    for row in rows:
        assert row["answer"], row
        assert row["reached_upstream"] == (row["route"] == "forward"), row
        assert (row["finish_reason"] == "content_filter") == (row["outcome"] in ("refused", "stopped")), row
        assert row["milliseconds"] > 0
    assert any(row["citations"] for row in rows if row["route"] == "ground")
    assert [row["query"] for row in rows if row["outcome"] == "stopped"] == [
        "Write short release notes for version 2.1 of our app."
    ]
    assert "sk-canned" not in str(rows)

    print_rows([Row(**row) for row in rows], canned=True)
    shown = capsys.readouterr().out
    refused = sum(row["route"] == "refuse" for row in rows)
    assert f"none of the {refused} refused ones" in shown
    assert "airlock serve --upstream" in shown
