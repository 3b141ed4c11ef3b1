"""The Kubernetes side: client, election, status writer, resource feeds."""
