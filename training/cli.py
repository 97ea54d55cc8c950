"""The commands `airlock train …` and `airlock eval …`; each lives in a module of its own."""

from __future__ import annotations

import typer

from training.commands import Commands
from training.grounding import door_cli, grounding_cli, interpreter_cli, retrieval_cli
from training.safety import cli as gateway_cli
from training.tiers import classifier_cli, responses_cli

train = typer.Typer(cls=Commands, no_args_is_help=True, help="Train a part on your data.")
evaluate = typer.Typer(cls=Commands, no_args_is_help=True, help="Measure a part on labelled data.")


@train.callback()
@evaluate.callback()
def _group() -> None:
    pass


train.command("reader")(grounding_cli.train_reader)
train.command("support")(grounding_cli.train_support)
train.command("interpreter")(interpreter_cli.train_interpreter)
train.command("responses")(responses_cli.train_responses)
train.command("classifier")(classifier_cli.train_classifier)
train.command("average")(classifier_cli.train_average)

evaluate.command("reader")(grounding_cli.eval_reader)
evaluate.command("support")(grounding_cli.eval_support)
evaluate.command("retrieval")(retrieval_cli.eval_retrieval)
evaluate.command("premise")(door_cli.eval_premise)
evaluate.command("grounding")(door_cli.eval_grounding)
evaluate.command("interpreter")(interpreter_cli.eval_interpreter)
evaluate.command("responses")(responses_cli.eval_responses)
evaluate.command("classifier")(classifier_cli.eval_classifier)
evaluate.command("folds")(classifier_cli.eval_folds)
evaluate.command("why")(classifier_cli.eval_why)
evaluate.command("data")(classifier_cli.eval_data)
evaluate.command("rag")(gateway_cli.eval_rag)
evaluate.command("safety")(gateway_cli.eval_safety)
