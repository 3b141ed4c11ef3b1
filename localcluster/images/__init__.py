"""Images and Debian roots, built on this machine without a registry: see caching, roots."""
