"""A real Kubernetes on a bare Debian machine, without Docker.

Two forms. The *light* one (:class:`localcluster.control_plane.ControlPlane`) is etcd and the API server as child
processes on loopback, for integration tests. The *full* one (``python -m localcluster up``) adds controllers,
scheduler, kubelet, kube-proxy, DNS and containerd in a network namespace of its own, and runs real pods.

Only the standard library is used, so that everything here runs with plain ``python3`` before any virtual environment
exists. Binaries are built once into a cache outside the checkout (:mod:`localcluster.binaries`); what runs keeps its
state in one directory outside it too (:mod:`localcluster.paths`). Whatever fails raises
:class:`localcluster.errors.LocalClusterError` with a sentence that says what to do.
"""
