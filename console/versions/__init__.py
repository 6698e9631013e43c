"""The screen of models: their versions, who serves which, the latest retraining, releasing and going back."""
