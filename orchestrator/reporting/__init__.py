"""A finished run explained: from its folder alone to words, figures and pages."""
