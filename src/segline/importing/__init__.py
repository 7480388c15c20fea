"""Import images and annotations into a dataset folder, from COCO and other layouts. The import is atomic."""
