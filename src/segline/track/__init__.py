"""MLflow runs, lineage, gate and registry: the only rooms that know MLflow."""
