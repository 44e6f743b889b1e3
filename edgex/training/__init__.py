"""Training: fine-tuning a predictor, learning an explainability vector."""
