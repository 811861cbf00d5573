"""The driver side of many experiments: searches over an experiment's keys. Nothing stands here yet."""
