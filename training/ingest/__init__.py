"""Requests, results and feedback from Kafka to data sets."""
