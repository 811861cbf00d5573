"""Losses on how samples lie to one another: relations within a batch."""
