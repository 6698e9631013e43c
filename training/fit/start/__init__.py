"""What a network begins as: heads that grow, answers that are held, and which weights are trained at which rates."""
