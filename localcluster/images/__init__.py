"""Images and Debian roots, built on this machine without a container engine and without a registry.

``python -m localcluster.images build`` builds; from Python it is ``ensure_images``. See catalogue.
"""
