"""What a registered model carries with it; imports nothing else of segline, so that it can be shipped whole."""
