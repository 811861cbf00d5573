"""What a run tells MLflow: written down beside it, then sent. `client`, `models` and `store` alone import MLflow, late:
that takes seconds.
"""
