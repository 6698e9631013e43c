"""The ONNX graph of a model: a layout of its tokens, an encoder's architecture, and one head per task."""
