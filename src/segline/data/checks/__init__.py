"""What makes a dataset unfit: each image examined, all of them judged."""
