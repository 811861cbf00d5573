"""Losses on what models see on the way: features at a tap."""
