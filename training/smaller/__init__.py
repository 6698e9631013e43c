"""The stage `smaller`: a trained model becomes one of fewer or narrower layers, from which a recipe starts."""
