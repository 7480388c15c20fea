"""Files that `segline init` writes into a new project. Here, dotfiles are stored without their leading dot,
and dvc.yaml has another name, because DVC would run the stages of any dvc.yaml in segline's own repository.
"""
