"""The gRPC door: the service layer of the gateway in the words of proto/distriqueue/v1alpha1/jobs.proto."""
