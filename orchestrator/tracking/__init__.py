"""All that touches MLflow, which no other module imports; it is loaded late, since that takes seconds."""
