"""Code that is packaged with every registered model; it imports nothing from the rest of segline."""
