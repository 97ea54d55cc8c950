"""Hard facts of a sentence, found by rules: numbers with units, dates, names, negation and the like."""
