//! Model files: the GGUF header, quantised block layouts, and synthetic weights of any shape.
