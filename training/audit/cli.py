"""The commands `airlock audit …`; each lives in a module of its own."""

from __future__ import annotations

import typer

from training.audit import behaviour_cli, heads_cli, report_cli, surgery_cli, testbed_cli

audit = typer.Typer(no_args_is_help=True, help="Measure a model's safety, and which attention heads carry it.")

audit.command("heads")(heads_cli.audit_heads)
audit.command("behaviour")(behaviour_cli.behaviour)
audit.command("testbed")(testbed_cli.make_testbed)
audit.command("report")(report_cli.report)
audit.command("compare")(report_cli.compare)
audit.command("fingerprint")(report_cli.fingerprint)
audit.command("verify")(report_cli.verify)
audit.command("schema")(report_cli.schema)
audit.command("remove")(surgery_cli.remove_heads)
