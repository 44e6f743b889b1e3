"""What is done with explainability vectors: baking, choosing alpha, arithmetic, records of transfer."""
