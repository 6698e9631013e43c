"""Murmura: asynchronous message-driven agents on Kafka, answered by one multitask transformer."""
