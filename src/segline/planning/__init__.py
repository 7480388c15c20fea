"""Plan the settings of a training from the dataset and from the speed of this machine."""
