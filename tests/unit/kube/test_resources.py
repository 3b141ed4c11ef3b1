from distriqueue.kube.resources import JOBS


def test_paths() -> None:
    assert JOBS.collection() == "/apis/distriqueue.io/v1alpha1/distributedjobs"
    assert JOBS.path("a", "b", "status") == "/apis/distriqueue.io/v1alpha1/namespaces/a/distributedjobs/b/status"
