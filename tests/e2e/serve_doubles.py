"""The command `airlock`, whose gateway is made of test doubles in the place of models: it starts in a second."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from guard import assemble
from guard.engine import Guard, Parts
from guard.output import output_checks
from tests.doubles import Library, WordClassifier


def load_guard(config, observers):
    """As `guard.assemble.load_guard` does it."""
    classifier = WordClassifier()
    output = output_checks(config.output, classifier)
    parts = Parts(classifier, Library(), output, assemble.load_journal(config), observers=observers)
    return Guard(config, parts)


assemble.load_guard = load_guard  # in each worker too, since it runs this file again

if __name__ == "__main__":
    from guard.cli import main

    main()
