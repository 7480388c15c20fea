"""The stages of dvc.yaml, one module per stage. A stage reads settings and data, and writes outputs."""
