"""Offline training: recipe to evaluated ONNX folder. Each stage reads a folder and writes a folder."""
