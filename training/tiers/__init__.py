"""Train, calibrate and measure the classifiers: of what users send, and of what a model answers."""
