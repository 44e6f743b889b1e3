"""How good a model's classes and heatmaps are: accuracy, faithfulness, localisation, other methods."""
