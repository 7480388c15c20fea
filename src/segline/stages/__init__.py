"""Stages of dvc.yaml, one file each: a stage reads settings and data, calls other rooms and writes its outputs."""
