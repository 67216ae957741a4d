"""From a trained net to files, and from files to predictions in a process without its code."""
from d2l.deploy.export import export_model, load_model

__all__ = ['export_model', 'load_model']
