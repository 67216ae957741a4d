"""The book's models, ready-made and hybridizable."""
