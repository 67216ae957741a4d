"""The training loops of the book, one module for each kind of task."""
