"""The stages of dvc.yaml, one file for each: read settings and data, call the rooms below, write the outputs."""
