"""Files that `segline init` writes into a new project. Here, dotfiles are stored without their leading dot."""
