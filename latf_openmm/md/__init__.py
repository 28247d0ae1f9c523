"""From a trained model to biased OpenMM simulations."""
