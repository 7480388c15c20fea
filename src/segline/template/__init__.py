"""Files that `segline init` writes into a new project.

Dotfiles are stored here without their leading dot. dvc.yaml is stored as stages.yaml, because DVC treats every dvc.yaml
in segline's own repository as a pipeline.
"""
