"""The doors: REST with live events, gRPC and HTTP workers, for callers who are known by their Kubernetes identity."""
