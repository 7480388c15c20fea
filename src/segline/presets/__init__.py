"""Settings for known datasets, as YAML."""
