"""The driver side of one experiment: config, plan, ladder, run, result."""
