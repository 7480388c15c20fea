"""Published recipes for public datasets, as YAML files."""
