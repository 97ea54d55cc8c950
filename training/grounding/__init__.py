"""Train and measure what grounds answers: readers, support models, interpreters, search and the citation gate."""
