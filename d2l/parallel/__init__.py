"""Computing on several devices: this room knows devices and arrays, not models."""
