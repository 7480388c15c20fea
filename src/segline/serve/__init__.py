"""HTTP server that labels images with a registered model."""
