"""Losses on what models answer: logits and the probabilities that they give."""
