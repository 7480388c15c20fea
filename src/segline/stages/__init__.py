"""Stages of dvc.yaml, one file for each. A stage reads settings and data, calls other modules and writes outputs."""
