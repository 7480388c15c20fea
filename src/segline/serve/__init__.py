"""HTTP server that predicts images with a registered model."""
