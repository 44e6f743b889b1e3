"""What an explanation costs: latency of one fused pass beside the plain classifier and Kernel SHAP."""
