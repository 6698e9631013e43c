"""What tasks that generate replies have of their own: decoder, scores, threshold, baselines, rewards."""
