"""edgex's own files, models and vectors, and where they are found: paths, the zoo, the Hugging Face hub."""
