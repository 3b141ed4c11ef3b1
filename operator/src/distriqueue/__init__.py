"""The control plane of DistriQueue: distributed jobs on Kubernetes, each always in exactly one custody."""
