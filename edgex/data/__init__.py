"""Pictures on disk: image folders, crops, object masks, augmentation."""
