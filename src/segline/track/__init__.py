"""Record MLflow runs, lineage and model versions, and read them back."""
