"""The screen that sends one text to an agent, over Kafka, and shows what came back."""
