"""The stage `smaller`: a trained model becomes one of fewer layers, from which a recipe starts."""
