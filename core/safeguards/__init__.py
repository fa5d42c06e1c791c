"""What can be added to any strategy, before, during and after training, and when the model is served."""
