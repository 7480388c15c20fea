"""Settings for public datasets, as YAML files."""
