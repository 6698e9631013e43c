"""A retraining job, stage by stage."""
