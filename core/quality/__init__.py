"""Task performance: what the model is for, before and after."""
