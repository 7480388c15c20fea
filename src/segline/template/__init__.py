"""Files that `segline init` writes into a new project; their names lack the leading dot."""
