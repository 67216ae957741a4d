"""Small tools that every other room may use: timing, plotting, devices, arrays, downloads."""
