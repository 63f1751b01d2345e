"""Transfer of weights, freezing, and learning rates of pretrained parts."""
